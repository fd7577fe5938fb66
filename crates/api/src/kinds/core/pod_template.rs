//! PodTemplate: a template that belongs to no workload.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodTemplate;
use serde_json::Value;

use super::pod::{container_cells, defaults, template_labels, warnings};
use crate::{
    field::{Errors, Path},
    kind::{Column, Kind, NAME_COLUMN, column},
    selector::Selector,
    validation::pod::validate_pod_template,
};

impl Kind for PodTemplate {
    const HAS_GENERATION: bool = true;

    fn set_defaults(&mut self) {
        defaults::pod_template(self.template.get_or_insert_default());
    }

    fn validate(&self, errors: &mut Errors) {
        validate_pod_template(&self.template.clone().unwrap_or_default(), &Path::new("template"), errors);
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        let path = Path::new("template");
        self.template.iter().flat_map(|template| warnings::of_template(template, &path)).collect()
    }

    fn columns() -> Vec<Column> {
        vec![
            NAME_COLUMN,
            column("Containers", "Names of each container in the template."),
            column("Images", "Images referenced by each container in the template."),
            column("Pod Labels", "The labels for the pod template."),
        ]
    }

    fn row(&self, _now: Timestamp) -> Vec<Value> {
        let [containers, images] = container_cells(self.template.as_ref());
        let labels = self.template.as_ref().map(template_labels).unwrap_or_default();
        let labels = match labels.is_empty() {
            true => "<none>".into(),
            false => Selector::from_labels(&labels).to_string(),
        };
        vec![self.metadata.name.clone().into(), containers, images, labels.into()]
    }
}
