//! Brings rendered objects into the kernel with `nft`, one transaction a change.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Stdio,
};

use tokio::{io::AsyncWriteExt, process::Command};
use tracing::{info, warn};

use crate::{
    cluster::ServiceName,
    render::{Objects, SERVICE_MARK, TABLE, script_from_nothing, script_of_change},
};

/// What goes wrong when a script is applied. The caller rewrites the whole table and tries again later.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot run {program}")]
    Run {
        program: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("{program} refused: {message}")]
    Refused { program: &'static str, message: String },
}

/// The table as this process last wrote it, Service by Service.
#[derive(Default)]
pub struct Kernel {
    pieces: BTreeMap<ServiceName, Objects>,
    /// How many Services hold an element; endpoints may serve several.
    holders: BTreeMap<(&'static str, String), usize>,
    is_written: bool,
}

impl Kernel {
    /// Applies the new objects of some Services (empty objects for a Service that is gone).
    /// After an error the next call writes the whole table anew.
    pub async fn apply(&mut self, changes: BTreeMap<ServiceName, Objects>) -> Result<(), Error> {
        let script = self.plan(changes);
        if script.is_empty() {
            return Ok(());
        }
        let outcome = run_with_input("nft", &["-f", "-"], &script).await;
        self.is_written = outcome.is_ok();
        outcome
    }

    /// Takes over the changes and returns the script that brings the kernel there.
    fn plan(&mut self, changes: BTreeMap<ServiceName, Objects>) -> String {
        let (mut before, mut after) = (Objects::default(), Objects::default());
        for (name, new) in changes {
            let old = self.pieces.remove(&name).unwrap_or_default();
            self.release(&old);
            self.hold(&new);
            before.extend(old);
            after.extend(new.clone());
            if new != Objects::default() {
                self.pieces.insert(name, new);
            }
        }
        if !self.is_written {
            let mut all = Objects::default();
            self.pieces.values().cloned().for_each(|piece| all.extend(piece));
            return script_from_nothing(&all);
        }
        // An element that another Service still holds is neither removed nor added again.
        let kept: Vec<_> = before.elements.keys().filter(|key| !after.elements.contains_key(*key)).cloned().collect();
        for key in kept.into_iter().filter(|key| self.holders.contains_key(key)) {
            before.elements.remove(&key);
        }
        let shared: BTreeSet<_> =
            after.elements.keys().filter(|key| !before.elements.contains_key(*key)).cloned().collect();
        for key in shared {
            let own = usize::from(after.elements.contains_key(&key));
            if self.holders.get(&key).is_some_and(|count| *count > own) && key.0 == "hairpin" {
                after.elements.remove(&key);
            }
        }
        script_of_change(&before, &after)
    }

    fn hold(&mut self, objects: &Objects) {
        for key in objects.elements.keys() {
            *self.holders.entry(key.clone()).or_default() += 1;
        }
    }

    fn release(&mut self, objects: &Objects) {
        for key in objects.elements.keys() {
            match self.holders.get_mut(key) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.holders.remove(key)),
            }
        }
    }
}

/// Whether this machine can run `nft` with the right to change tables.
pub async fn is_available() -> bool {
    run_with_input("nft", &["list", "tables"], "").await.is_ok()
}

/// Removes the table; used by `proxy --cleanup`.
pub async fn clean_up() -> Result<(), Error> {
    run_with_input("nft", &["-f", "-"], &format!("add table ip {TABLE}\ndelete table ip {TABLE}\n")).await
}

/// Kernel settings that translated traffic needs. Failing is reported, not fatal: they may be set already.
pub async fn prepare_sysctls() {
    let wanted = [
        ("net/ipv4/ip_forward", "1"),
        // NodePorts on 127.0.0.1: lets packets from loopback leave through another interface.
        ("net/ipv4/conf/all/route_localnet", "1"),
        // Lets replies between two Pods of one bridge pass the translation that the request passed.
        ("net/bridge/bridge-nf-call-iptables", "1"),
    ];
    for (name, value) in wanted {
        let path = format!("/proc/sys/{name}");
        let is_set = tokio::fs::read_to_string(&path).await.is_ok_and(|text| text.trim() == value);
        if !is_set && let Err(error) = tokio::fs::write(&path, value).await {
            warn!(%error, sysctl = name, "cannot set a kernel parameter that Services need");
        }
    }
}

/// Docker drops forwarded traffic that it did not publish; its DOCKER-USER chain is where others may
/// allow theirs. Only connections that our chains marked are let through.
pub async fn open_docker_firewall() {
    let mark = format!("{SERVICE_MARK:#x}/{SERVICE_MARK:#x}");
    let rule = ["DOCKER-USER", "-m", "connmark", "--mark", &mark, "-j", "ACCEPT"];
    let call = |verb: &'static str| {
        let args: Vec<&str> = ["-w", verb].into_iter().chain(rule).collect();
        async move { run_with_input("iptables", &args, "").await }
    };
    if call("-C").await.is_ok() {
        return;
    }
    match call("-I").await {
        Ok(()) => info!("let Service traffic pass Docker's firewall (chain DOCKER-USER)"),
        Err(error) => tracing::debug!(%error, "no DOCKER-USER chain to open"),
    }
}

/// Forgets the UDP flows that still go to a backend which is gone: they have no end of their own.
pub async fn forget_udp_flows(backend: std::net::Ipv4Addr) {
    let ip = backend.to_string();
    // Exits with 1 where there was no such flow.
    let _ = run_with_input("conntrack", &["-D", "-p", "udp", "--dst-nat", &ip], "").await;
}

async fn run_with_input(program: &'static str, args: &[&str], input: &str) -> Result<(), Error> {
    let run = |source| Error::Run { program, source };
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(run)?;
    let mut stdin = child.stdin.take().expect("stdin was asked to be piped");
    // A program that reads no input may have left already.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.map_err(run)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::Refused { program, message: String::from_utf8_lossy(&output.stderr).trim().to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(elements: &[&str]) -> Objects {
        let mut objects = Objects::default();
        for key in elements {
            objects.elements.insert(("hairpin", (*key).to_owned()), String::new());
        }
        objects
    }

    fn name(name: &str) -> ServiceName {
        ServiceName { namespace: "d".into(), name: name.into() }
    }

    #[test]
    fn an_element_of_two_services_goes_with_the_last() {
        let mut kernel = Kernel { is_written: true, ..Kernel::default() };
        assert!(kernel.plan([(name("a"), piece(&["x"]))].into()).contains("add element"));
        assert_eq!(kernel.plan([(name("b"), piece(&["x"]))].into()), "");
        assert_eq!(kernel.plan([(name("a"), piece(&[]))].into()), "");
        assert!(kernel.plan([(name("b"), piece(&[]))].into()).contains("delete element"));
    }

    #[test]
    fn the_first_script_writes_the_frame() {
        let script = Kernel::default().plan([(name("a"), piece(&["x"]))].into());
        assert!(script.starts_with("add table ip skiff\ndelete table ip skiff\n"), "{script}");
        assert!(script.contains("add element ip skiff hairpin { x }"), "{script}");
    }
}
