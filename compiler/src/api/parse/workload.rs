//! Objects from which a cluster makes Pods. Their `spec.template` is read as the Pod that it describes.

use serde::Deserialize as _;
use serde_json::Number;

use crate::api::findings::{Findings, wrong_type};
use crate::api::lenient::{Lenient, Record};
use crate::api::reader::{Fields, Reader, type_of};
use crate::api::wire::{MetaWire, PodWire};
use crate::api::{
    Finding, Json, ObjectRef, Operator, Parsed, Pod, PodCount, Protocol, Requirement, Selector, Str, Workload,
    WorkloadKey, WorkloadKind,
};

use super::meta::{Scope, meta};
use super::selector::selector;

/// The Pods of a workload that does not say how many, by the API reference.
const DEFAULT_COUNT: i64 = 1;

/// Reads a workload; one without a name goes by `stand_in`.
pub(super) fn parse_workload(kind: WorkloadKind, object: &Json, stand_in: &str) -> Parsed<Workload> {
    let wire = object.get("metadata").map_or(Ok(Lenient::Absent), Lenient::<Record<MetaWire>>::deserialize);
    let (meta, mut findings) = meta(kind.as_str(), Scope::Namespaced, wire.unwrap_or_default(), stand_in);
    let key = WorkloadKey { kind, namespace: meta.namespace, name: meta.name };
    let root = Reader::root(object).fields(&mut findings).unwrap_or_default();
    let spec = fields_of(&root, "spec", &mut findings).unwrap_or(Fields::none("spec"));
    let of_job = (kind == WorkloadKind::CronJob).then(|| {
        fields_of(&spec, "jobTemplate", &mut findings)
            .and_then(|template| fields_of(&template, "spec", &mut findings))
            .unwrap_or(Fields::none("spec.jobTemplate.spec"))
    });
    let job = of_job.as_ref().unwrap_or(&spec);
    let count = count(kind, &spec, job, &mut findings);
    let (template, declared_ports, of_template) = template(&key, job, &mut findings);
    let selector = match kind {
        WorkloadKind::Job | WorkloadKind::CronJob => None,
        WorkloadKind::ReplicationController => Some(plain_selector(&spec, &template, &mut findings)),
        WorkloadKind::DaemonSet | WorkloadKind::Deployment | WorkloadKind::ReplicaSet | WorkloadKind::StatefulSet => {
            Some(match spec.get("selector") {
                Some(reader) => selector_of(&reader, &template, &mut findings),
                None => of_labels(&template),
            })
        }
    };
    let owner = owner_of(object, &key.namespace);
    let mut findings = findings.into_vec();
    findings.extend(of_template);
    Parsed { value: Workload { key, owner, count, selector, template, declared_ports }, findings }
}

/// The workload that made an object of this namespace, by its `metadata.ownerReferences`: the entry whose `controller` is
/// set. Others only keep it alive.
pub(super) fn owner_of(object: &Json, namespace: &Str) -> Option<WorkloadKey> {
    let owners = object.at(&["metadata", "ownerReferences"])?.as_list()?;
    let owner = owners.iter().find(|owner| owner.get("controller") == Some(&Json::Bool(true)))?;
    let text = |name: &str| owner.get(name).and_then(Json::as_str);
    let kind = WorkloadKind::of(text("kind")?).filter(|kind| text("apiVersion").is_some_and(|of| kind.is_in(of)))?;
    Some(WorkloadKey { kind, namespace: namespace.clone(), name: text("name")?.into() })
}

fn fields_of<'a>(fields: &Fields<'a>, name: &'a str, findings: &mut Findings) -> Option<Fields<'a>> {
    fields.get(name)?.fields(findings).ok()
}

/// How many Pods there are, by the API reference of each kind. What is no number counts as the default.
fn count(kind: WorkloadKind, spec: &Fields<'_>, job: &Fields<'_>, findings: &mut Findings) -> PodCount {
    let is_suspended = spec.get("suspend").is_some_and(|value| value.value() == &Json::Bool(true));
    match kind {
        WorkloadKind::DaemonSet => PodCount::EachNode,
        WorkloadKind::Job | WorkloadKind::CronJob if is_suspended => PodCount::Suspended,
        WorkloadKind::Job | WorkloadKind::CronJob => {
            let parallelism = number(job, "parallelism", findings).unwrap_or(DEFAULT_COUNT);
            let completions = number(job, "completions", findings).unwrap_or(parallelism);
            PodCount::These(bounded(parallelism.min(completions)))
        }
        WorkloadKind::Deployment
        | WorkloadKind::ReplicaSet
        | WorkloadKind::ReplicationController
        | WorkloadKind::StatefulSet => {
            PodCount::These(bounded(number(spec, "replicas", findings).unwrap_or(DEFAULT_COUNT)))
        }
    }
}

/// A field that is a count, if it is there and is one.
fn number(fields: &Fields<'_>, name: &str, findings: &mut Findings) -> Option<i64> {
    let field = fields.get(name)?;
    match field.value().as_number().and_then(Number::as_i64) {
        Some(number) if number >= 0 => Some(number),
        Some(number) => {
            findings.add(field.path(), format!("{number} is less than 0; the default is taken"));
            None
        }
        None => {
            findings.add(field.path(), wrong_type(type_of(field.value()), "a whole number"));
            None
        }
    }
}

fn bounded(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The Pod that the template describes, the ports that its containers declare, and what is wrong with it.
fn template(key: &WorkloadKey, job: &Fields<'_>, findings: &mut Findings) -> (Pod, Vec<(Protocol, u16)>, Vec<Finding>) {
    let path = job.path_of("template");
    let given = job.get("template");
    if given.is_none() {
        findings.add(&path, "is missing, and says what its Pods are");
    }
    let given = given.map_or(&Json::Null, |reader| reader.value());
    let text = |text: &str| Json::String(text.into());
    let own = [("namespace".into(), text(&key.namespace)), ("name".into(), text(&key.name))];
    let metadata = given.get("metadata").into_iter().flat_map(Json::entries).chain(own).collect();
    let spec = given.get("spec").unwrap_or(&Json::Null).clone();
    let pod: Json = [("metadata".into(), metadata), ("spec".into(), spec)].into_iter().collect();
    let wire = PodWire::deserialize(&pod).unwrap_or_default();
    let declared_ports = wire.declared_ports();
    let Parsed { value, findings } = wire.parse_as(&key.name);
    let object: ObjectRef = key.reference();
    // Whatever name the template has, its Pods have another.
    let is_told = |finding: &Finding| !matches!(&*finding.field, "metadata.name" | "metadata.namespace");
    let of_template = findings.into_iter().filter(is_told).map(|Finding { object: _, field, reason }| {
        let field = if field.is_empty() { path.to_string() } else { format!("{path}.{field}") };
        Finding { object: object.clone(), field, reason }
    });
    (value, declared_ports, of_template.collect())
}

/// `spec.selector`; of one that selects not even its own template, which the API server would refuse, nothing counts.
fn selector_of(reader: &Reader<'_>, template: &Pod, findings: &mut Findings) -> Selector {
    let read = selector(reader, findings).selector;
    if !read.matches(&template.labels) {
        findings.add(reader.path(), "does not select the labels of the template, which the API server refuses");
        return of_labels(template);
    }
    read
}

/// The selector of a ReplicationController, which is a map of labels.
fn plain_selector(spec: &Fields<'_>, template: &Pod, findings: &mut Findings) -> Selector {
    let Some(fields) = fields_of(spec, "selector", findings) else { return of_labels(template) };
    let label = |(key, value): (&str, Reader<'_>)| Some((key.into(), value.value().as_str()?.into()));
    labels_selector(fields.entries().filter_map(label))
}

fn of_labels(template: &Pod) -> Selector {
    labels_selector(template.labels.iter().map(|(key, value)| (key.clone(), value.clone())))
}

fn labels_selector(labels: impl Iterator<Item = (Str, Str)>) -> Selector {
    labels.map(|(key, value)| Requirement { key, operator: Operator::In([value].into()) }).collect()
}
