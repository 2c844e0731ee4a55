//! The rule that comes nearest to allowing what is refused, as it is told to people and programs.

use compiler::api::{Direction, escaped};
use compiler::policy::{Miss, Nearest};
use compiler::yaml::value_to_yaml;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The rule, what it fails by, and the smallest change that would allow the flow in this direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearRule {
    /// `namespace/policy ingress[0]`; null where no policy that isolates the pod has a rule of this direction.
    pub rule: Option<String>,
    /// What it fails by; empty where there is no rule.
    pub misses: Vec<PartMissed>,
    /// What would allow the flow in this direction; null where no change is small.
    pub change: Option<Proposed>,
    /// Whether there are so many rules that not all of them were looked at. Left out where all were.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// A part of a rule by which it does not allow a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartMissed {
    /// `ports`, `podSelector`, `namespaceSelector`, `ipBlock`, or `peers` where none could be understood.
    pub part: String,
    /// Why, in words.
    pub why: String,
}

/// A change that kubectl takes. It opens something, and isolates nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposed {
    /// How kubectl takes it, where `FILE` holds the manifest.
    pub command: String,
    /// A list of operations (JSON Patch, RFC 6902), or a NetworkPolicy.
    pub manifest: Value,
}

impl NearRule {
    /// What is told of a rule that was found.
    pub fn of(nearest: &Nearest, direction: Direction) -> NearRule {
        let Nearest { rule, misses, change, partial } = nearest;
        let missed = |Miss { part, why }: &Miss| PartMissed { part: part.as_str().to_owned(), why: why.clone() };
        NearRule {
            rule: rule.as_ref().map(|(policy, index)| format!("{policy} {}[{index}]", direction.as_str())),
            misses: misses.iter().map(missed).collect(),
            change: change
                .as_ref()
                .map(|change| Proposed { command: change.command(), manifest: change.manifest().clone() }),
            partial: *partial,
        }
    }

    /// `shop/db ingress[0], but for ports: it has 80/TCP`
    pub fn in_words(&self, direction: Direction) -> String {
        let misses: Vec<String> = self.misses.iter().map(|miss| format!("{}: {}", miss.part, miss.why)).collect();
        let mut text = match &self.rule {
            Some(rule) => format!("{rule}, but for {}", misses.join("; and ")),
            None => format!("none: no policy that is in force for it has a rule of {}", direction.as_str()),
        };
        if self.partial {
            text.push_str(" (of those that were looked at: there are too many rules)");
        }
        escaped(&text).into_owned()
    }
}

impl Proposed {
    /// The manifest as YAML, line by line.
    pub fn lines(&self) -> Vec<String> {
        value_to_yaml(&self.manifest).lines().map(|line| escaped(line).into_owned()).collect()
    }
}
