//! Applies manifests as `kubectl apply --server-side --validate=strict` does.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, ValidationDirective};
use kube::discovery::Discovery;

use super::ControlPlane;

impl ControlPlane {
    /// Creates or replaces every object of a YAML text; an unknown or doubled field is refused.
    ///
    /// Objects come in the order of the text, so a Namespace stands before what is in it.
    ///
    /// # Errors
    ///
    /// At the first object that is not YAML, of no kind that the server knows, or refused; the error names it.
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        let objects: Vec<DynamicObject> = serde_saphyr::from_multiple(yaml)?;
        let discovery = Discovery::new(self.client()).run_aggregated().await?;
        for object in objects {
            let kind = object.types.as_ref().map_or("", |types| &types.kind);
            let name = format!("{kind} {}", object.metadata.name.as_deref().unwrap_or_default());
            self.apply_object(&discovery, object).await.with_context(|| name)?;
        }
        Ok(())
    }

    /// Applies a file, or every `.yaml` file of a folder in the order of their names.
    ///
    /// # Errors
    ///
    /// If something cannot be read, and as for [`ControlPlane::apply`]; the error names the file.
    pub async fn apply_path(&self, path: &Path) -> Result<()> {
        let mut files = vec![path.to_owned()];
        if path.is_dir() {
            files = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
            files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
            files.sort();
        }
        for file in files {
            let name = || file.display().to_string();
            self.apply(&fs::read_to_string(&file).with_context(name)?).await.with_context(name)?;
        }
        Ok(())
    }

    async fn apply_object(&self, discovery: &Discovery, object: DynamicObject) -> Result<()> {
        let (resource, capabilities) =
            discovery.resolve_object(&object).context("the server knows no such kind and version")?;
        let api: Api<DynamicObject> = match capabilities.scope {
            kube::discovery::Scope::Cluster => Api::all_with(self.client(), &resource),
            kube::discovery::Scope::Namespaced => {
                let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
                Api::namespaced_with(self.client(), namespace, &resource)
            }
        };
        let name = object.metadata.name.as_deref().context("the object has no name")?;
        let mut params = PatchParams::apply("postern-tests").force();
        params.field_validation = Some(ValidationDirective::Strict);
        api.patch(name, &params, &Patch::Apply(&object)).await?;
        Ok(())
    }
}
