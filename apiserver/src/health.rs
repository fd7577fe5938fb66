//! `/healthz`, `/livez`, `/readyz`, with their checks one by one.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use api::Status;
use axum::response::Response;

use crate::{Server, options::pairs, respond::bytes_response};

/// A store that does not answer within this time is not healthy.
const STORE_WAIT_MAX: Duration = Duration::from_secs(2);

const CHECKS: &[&str] = &["ping", "log", "etcd"];
const READY_CHECKS: &[&str] = &["etcd-readiness", "informer-sync", "poststarthook/rbac/bootstrap-roles", "shutdown"];

async fn passes(server: &Server, check: &str) -> bool {
    match check {
        "etcd" | "etcd-readiness" => {
            tokio::time::timeout(STORE_WAIT_MAX, server.store.revision()).await.is_ok_and(|answer| answer.is_ok())
        }
        "informer-sync" | "poststarthook/rbac/bootstrap-roles" => server.is_ready(),
        "shutdown" => !server.is_stopping(),
        _ => true,
    }
}

/// `path` begins with the endpoint; what follows names one check.
pub(crate) async fn check(server: &Arc<Server>, path: &[&str], query: &str) -> Result<Response, Status> {
    let (endpoint, rest) = path.split_first().map_or(("healthz", &[][..]), |(first, rest)| (*first, rest));
    let mut checks: Vec<&str> = CHECKS.to_vec();
    if endpoint == "readyz" {
        checks.extend(READY_CHECKS);
    }
    let only = rest.join("/");
    if !only.is_empty() {
        let known = checks.iter().find(|check| **check == only).copied();
        checks = vec![known.ok_or_else(Status::no_such_path)?];
    }
    let excluded: Vec<String> = pairs(query).filter(|(name, _)| name == "exclude").map(|(_, value)| value).collect();
    let mut report = String::new();
    let mut healthy = true;
    for check in checks {
        let passed = excluded.iter().any(|name| name == check) || passes(server, check).await;
        healthy &= passed;
        let _ = match passed {
            true => writeln!(report, "[+]{check} ok"),
            false => writeln!(report, "[-]{check} failed: reason withheld"),
        };
    }
    let verbose = pairs(query).any(|(name, _)| name == "verbose");
    let (code, text) = match (healthy, verbose) {
        (true, false) => (200, "ok".to_owned()),
        (true, true) => (200, format!("{report}{endpoint} check passed\n")),
        (false, _) => (500, format!("{report}{endpoint} check failed\n")),
    };
    Ok(bytes_response(code, text.into(), "text/plain; charset=utf-8"))
}
