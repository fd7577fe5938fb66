//! Where a reflector reads from: whole objects, or their metadata only.

use std::{fmt::Debug, future::Future};

use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api, Resource,
    api::{DynamicObject, ListParams, ObjectList, WatchEvent, WatchParams},
    core::PartialObjectMeta,
};
use serde::de::DeserializeOwned;

/// One kind at one server.
pub(super) trait Source: Send + Sync + 'static {
    type Object: Resource + Clone + Send + Sync + 'static;

    fn list(&self, params: &ListParams) -> impl Future<Output = kube::Result<ObjectList<Self::Object>>> + Send;

    #[allow(clippy::type_complexity)]
    fn watch(
        &self,
        params: &WatchParams,
        revision: &str,
    ) -> impl Future<Output = kube::Result<BoxStream<'static, kube::Result<WatchEvent<Self::Object>>>>> + Send;

    /// For logs.
    fn url(&self) -> &str;
}

pub(super) struct Whole<K>(pub Api<K>);

impl<K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Source for Whole<K> {
    type Object = K;

    async fn list(&self, params: &ListParams) -> kube::Result<ObjectList<K>> {
        self.0.list(params).await
    }

    async fn watch(
        &self,
        params: &WatchParams,
        revision: &str,
    ) -> kube::Result<BoxStream<'static, kube::Result<WatchEvent<K>>>> {
        Ok(self.0.watch(params, revision).await?.boxed())
    }

    fn url(&self) -> &str {
        self.0.resource_url()
    }
}

pub(super) struct MetadataOnly(pub Api<DynamicObject>);

impl Source for MetadataOnly {
    type Object = PartialObjectMeta<DynamicObject>;

    async fn list(&self, params: &ListParams) -> kube::Result<ObjectList<Self::Object>> {
        self.0.list_metadata(params).await
    }

    async fn watch(
        &self,
        params: &WatchParams,
        revision: &str,
    ) -> kube::Result<BoxStream<'static, kube::Result<WatchEvent<Self::Object>>>> {
        Ok(self.0.watch_metadata(params, revision).await?.boxed())
    }

    fn url(&self) -> &str {
        self.0.resource_url()
    }
}
