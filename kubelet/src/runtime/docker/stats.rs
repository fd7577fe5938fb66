//! One reading of each running container.

use bollard::{models::ContainerStatsResponse, query_parameters::StatsOptionsBuilder};
use futures::{StreamExt, future::join_all};

use super::Docker;
use crate::runtime::{ContainerState, ContainerStats, PodIdentity, Result};

impl Docker {
    pub(super) async fn readings(&self) -> Result<Vec<ContainerStats>> {
        let view = self.list_pods().await?;
        let mut running = Vec::new();
        for pod in view.values() {
            let containers = pod.containers.iter().filter(|container| container.state == ContainerState::Running);
            running.extend(containers.map(|c| (pod.identity.clone(), c.name.clone(), false, c.id.clone())));
            let sandboxes = pod.sandboxes.iter().filter(|sandbox| sandbox.ready);
            running.extend(sandboxes.map(|s| (pod.identity.clone(), String::new(), true, s.id.clone())));
        }
        let readings = running.into_iter().map(|(pod, name, sandbox, id)| self.reading(pod, name, sandbox, id));
        Ok(join_all(readings).await.into_iter().flatten().collect())
    }

    async fn reading(&self, pod: PodIdentity, container: String, sandbox: bool, id: String) -> Option<ContainerStats> {
        let once = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let stats = std::pin::pin!(self.api.stats(&id, Some(once))).next().await?.ok()?;
        let base = ContainerStats { pod, container, sandbox, id, ..Default::default() };
        Some(of_response(base, stats))
    }
}

fn of_response(base: ContainerStats, stats: ContainerStatsResponse) -> ContainerStats {
    let memory = stats.memory_stats.unwrap_or_default();
    let detail = memory.stats.unwrap_or_default();
    // The first name is that of cgroup v1, the second that of v2.
    let of = |v1: &str, v2: &str| detail.get(v1).or_else(|| detail.get(v2)).copied().unwrap_or_default();
    let usage = memory.usage.unwrap_or_default();
    let networks: Vec<_> = stats.networks.unwrap_or_default().into_values().collect();
    ContainerStats {
        at: stats.read.and_then(|text| text.parse().ok()).unwrap_or_default(),
        cpu_usage_nanos: stats.cpu_stats.and_then(|cpu| cpu.cpu_usage?.total_usage).unwrap_or_default(),
        memory_usage_bytes: usage,
        memory_working_set_bytes: usage.saturating_sub(of("total_inactive_file", "inactive_file")),
        memory_rss_bytes: of("total_rss", "anon"),
        network_rx_bytes: networks.iter().filter_map(|network| network.rx_bytes).sum(),
        network_tx_bytes: networks.iter().filter_map(|network| network.tx_bytes).sum(),
        pids: stats.pids_stats.and_then(|pids| pids.current).unwrap_or_default(),
        ..base
    }
}
