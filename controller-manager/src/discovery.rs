//! What the server offers: the resources whose objects can be listed, watched and deleted.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::{Client, api::ApiResource};

/// Events under their second name are the same objects again.
const SAME_AS_CORE: &str = "events.k8s.io";

/// A kind of objects that can be deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    pub api: ApiResource,
    pub namespaced: bool,
    /// Some can be created and deleted only; they have no changes to follow.
    pub watchable: bool,
}

/// All deletable resources in their preferred versions, and a sentence for each group that could not be asked.
#[derive(Debug, Default)]
pub struct Found {
    pub resources: Vec<Resource>,
    pub failures: Vec<String>,
}

/// Asks the server.
///
/// # Errors
/// The list of groups could not be read: then nothing is known.
pub async fn discover(client: &Client) -> kube::Result<Found> {
    let mut found = Found::default();
    found.add("v1", client.list_core_api_resources("v1").await);
    for group in client.list_api_groups().await?.groups {
        if group.name == SAME_AS_CORE {
            continue;
        }
        let preferred = group.preferred_version.or_else(|| group.versions.into_iter().next());
        if let Some(version) = preferred.map(|version| version.group_version) {
            let listed = client.list_api_group_resources(&version).await;
            found.add(&version, listed);
        }
    }
    Ok(found)
}

impl Found {
    fn add(&mut self, group_version: &str, listed: kube::Result<APIResourceList>) {
        match listed {
            Ok(list) => self.resources.extend(resources(group_version, list)),
            Err(error) => self.failures.push(format!("{group_version}: {error}")),
        }
    }
}

fn resources(group_version: &str, list: APIResourceList) -> impl Iterator<Item = Resource> {
    let (group, version) = match group_version.split_once('/') {
        Some((group, version)) => (group.to_owned(), version.to_owned()),
        None => (String::new(), group_version.to_owned()),
    };
    let api_version = group_version.to_owned();
    let can = |verbs: &[String], verb: &str| verbs.iter().any(|offered| offered == verb);
    let deletable = list.resources.into_iter().filter(move |resource| {
        !resource.name.contains('/') && can(&resource.verbs, "list") && can(&resource.verbs, "delete")
    });
    deletable.map(move |resource| Resource {
        watchable: can(&resource.verbs, "watch"),
        namespaced: resource.namespaced,
        api: ApiResource {
            group: group.clone(),
            version: version.clone(),
            api_version: api_version.clone(),
            kind: resource.kind,
            plural: resource.name,
        },
    })
}
