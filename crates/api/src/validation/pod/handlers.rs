//! Probes and lifecycle hooks, and what they do.

use k8s_openapi::{
    api::core::v1::{
        Container, ExecAction, GRPCAction, HTTPGetAction, LifecycleHandler, Probe, SleepAction, TCPSocketAction,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::Surroundings;
use crate::{
    field::{Errors, Path},
    names,
    validation::{check, net, validate_non_negative},
};

/// What a probe or a hook may do; exactly one of it.
#[derive(Default)]
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
    grace_period: Option<i64>,
}

impl Handler<'_> {
    fn validate(&self, path: &Path, errors: &mut Errors) {
        let given = [
            ("exec", self.exec.is_some()),
            ("httpGet", self.http_get.is_some()),
            ("tcpSocket", self.tcp_socket.is_some()),
            ("grpc", self.grpc.is_some()),
            ("sleep", self.sleep.is_some()),
        ];
        let mut given = given.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name);
        match given.next() {
            Some(name) => self.validate_action(name, &path.child(name), errors),
            None => errors.required(path, "must specify a handler type"),
        }
        for name in given {
            errors.forbidden(&path.child(name), "may not specify more than 1 handler type");
        }
    }

    fn validate_action(&self, name: &str, path: &Path, errors: &mut Errors) {
        match name {
            "exec" => {
                if self.exec.is_some_and(|exec| exec.command.as_ref().is_none_or(|command| command.is_empty())) {
                    errors.required(&path.child("command"), "");
                }
            }
            "httpGet" => self.http_get.iter().for_each(|http| validate_http_get(http, path, errors)),
            "tcpSocket" => {
                self.tcp_socket
                    .iter()
                    .for_each(|tcp| net::validate_port_or_name(&tcp.port, &path.child("port"), errors));
            }
            "grpc" => {
                let port = self.grpc.map(|grpc| IntOrString::Int(grpc.port)).unwrap_or_default();
                net::validate_port_or_name(&port, &path.child("port"), errors);
            }
            _ => self.sleep.iter().for_each(|sleep| self.validate_sleep(sleep, path, errors)),
        }
    }

    fn validate_sleep(&self, sleep: &SleepAction, path: &Path, errors: &mut Errors) {
        let Some(grace) = self.grace_period else { return };
        if sleep.seconds < 0 || sleep.seconds > grace {
            let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
            errors.invalid(path, sleep.seconds, why);
        }
    }
}

fn validate_http_get(http: &HTTPGetAction, path: &Path, errors: &mut Errors) {
    if http.path.as_deref().unwrap_or_default().is_empty() {
        errors.required(&path.child("path"), "");
    }
    net::validate_port_or_name(&http.port, &path.child("port"), errors);
    let scheme = http.scheme.as_deref().unwrap_or_default();
    if !["HTTP", "HTTPS"].contains(&scheme) {
        errors.not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in http.http_headers.iter().flatten() {
        check(names::is_http_header_name(&header.name), &header.name, &path.child("httpHeaders"), errors);
    }
}

/// Liveness, readiness and startup.
pub fn validate_probes(container: &Container, path: &Path, errors: &mut Errors) {
    let must_be_1 = |probe: &Probe, path: &Path, errors: &mut Errors| {
        validate_probe(probe, path, errors);
        let threshold = probe.success_threshold.unwrap_or_default();
        if threshold != 1 {
            errors.invalid(&path.child("successThreshold"), threshold, "must be 1");
        }
    };
    if let Some(probe) = &container.liveness_probe {
        must_be_1(probe, &path.child("livenessProbe"), errors);
    }
    if let Some(probe) = &container.readiness_probe {
        let path = path.child("readinessProbe");
        validate_probe(probe, &path, errors);
        if let Some(seconds) = probe.termination_grace_period_seconds {
            let path = path.child("terminationGracePeriodSeconds");
            errors.invalid(&path, seconds, "must not be set for readinessProbes");
        }
    }
    if let Some(probe) = &container.startup_probe {
        must_be_1(probe, &path.child("startupProbe"), errors);
    }
}

fn validate_probe(probe: &Probe, path: &Path, errors: &mut Errors) {
    let handler = Handler {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        ..Handler::default()
    };
    handler.validate(path, errors);
    let counts = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, count) in counts {
        validate_non_negative(i64::from(count.unwrap_or_default()), &path.child(field), errors);
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|seconds| *seconds <= 0) {
        errors.invalid(&path.child("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
    }
}

pub fn validate_lifecycle(container: &Container, around: &Surroundings<'_>, path: &Path, errors: &mut Errors) {
    let Some(lifecycle) = &container.lifecycle else { return };
    let mut hook = |hook: &LifecycleHandler, path: &Path| {
        let handler = Handler {
            exec: hook.exec.as_ref(),
            http_get: hook.http_get.as_ref(),
            tcp_socket: hook.tcp_socket.as_ref(),
            sleep: hook.sleep.as_ref(),
            grace_period: around.grace_period(),
            ..Handler::default()
        };
        handler.validate(path, errors);
    };
    lifecycle.post_start.iter().for_each(|start| hook(start, &path.child("postStart")));
    lifecycle.pre_stop.iter().for_each(|stop| hook(stop, &path.child("preStop")));
    if let Some(signal) = &lifecycle.stop_signal {
        let path = path.child("stopSignal");
        match around.spec.os.as_ref().map(|os| os.name.as_str()) {
            None => errors.forbidden(&path, "may not be set for containers with empty `spec.os.name`"),
            Some("windows") if signal != "SIGKILL" && signal != "SIGTERM" => {
                errors.not_supported(&path, signal, &["SIGKILL", "SIGTERM"]);
            }
            Some("linux") if !is_linux_signal(signal) => errors.not_supported(&path, signal, LINUX_SIGNALS),
            Some(_) => {}
        }
    }
}

/// The signals with names of their own; real-time ones are counted from both ends.
const LINUX_SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMIN",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

fn is_linux_signal(signal: &str) -> bool {
    let offset = |prefix: &str, max: u32| {
        signal.strip_prefix(prefix).and_then(|rest| rest.parse().ok()).is_some_and(|n: u32| (1..=max).contains(&n))
    };
    LINUX_SIGNALS.contains(&signal) || offset("SIGRTMIN+", 15) || offset("SIGRTMAX-", 14)
}
