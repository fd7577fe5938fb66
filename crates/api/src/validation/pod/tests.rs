use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::{
    field::Errors,
    kind::Kind as _,
    kinds::testing::{check_change, check_new},
};

/// A valid Pod in which `change` replaces the given fields of the spec.
fn pod(change: Value) -> Value {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i"}], "serviceAccountName": "default"}});
    pod["spec"].as_object_mut().unwrap().extend(change.as_object().cloned().unwrap());
    pod
}

fn spec(change: Value, expected: Expect) {
    check_new::<Pod>(pod(change), expected);
}

fn container(change: Value, expected: Expect) {
    let mut container = json!({"name": "c", "image": "i"});
    container.as_object_mut().unwrap().extend(change.as_object().cloned().unwrap());
    spec(json!({"containers": [container], "volumes": [{"name": "v"}, {"name": "w"}]}), expected);
}

#[test]
fn containers() {
    spec(json!({}), expect![""]);
    spec(json!({"containers": []}), expect!["spec.containers: Required value"]);
    spec(
        json!({"containers": [{"name": "", "image": ""}, {"name": "A b", "image": " i "}, {"name": "c", "image": "i"},
        {"name": "c", "image": "i"}]}),
        expect![[r#"
            spec.containers[0].name: Required value
            spec.containers[0].image: Required value
            spec.containers[1].name: Invalid value: "A b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.containers[3].name: Duplicate value: "c"
            spec.containers[1].image: Invalid value: " i ": must not have leading or trailing whitespace"#]],
    );
    container(
        json!({"imagePullPolicy": "Sometimes", "terminationMessagePolicy": "Never"}),
        expect![[r#"
        spec.containers[0].terminationMessagePolicy: Unsupported value: "Never": supported values: "File", "FallbackToLogsOnError"
        spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never""#]],
    );
    container(
        json!({"ports": [{"containerPort": 0, "protocol": "ICMP"}, {"name": "Http_", "containerPort": 70000},
        {"name": "a", "containerPort": 1, "hostPort": 80}, {"name": "a", "containerPort": 2, "hostPort": 80}]}),
        expect![[r#"
            spec.containers[0].ports[0].containerPort: Required value
            spec.containers[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"
            spec.containers[0].ports[1].name: Invalid value: "Http_": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)
            spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive
            spec.containers[0].ports[3].name: Duplicate value: "a"
            spec.containers[0].ports[3].hostPort: Duplicate value: "TCP//80""#]],
    );
    container(
        json!({"resizePolicy": [{"resourceName": "gpu", "restartPolicy": ""}]}),
        expect![[r#"
        spec.containers[0].resizePolicy: Unsupported value: "gpu": supported values: "cpu", "memory"
        spec.containers[0].resizePolicy: Required value"#]],
    );
    container(
        json!({"restartPolicyRules": [{"action": "Reboot", "exitCodes": {"operator": "Gt"}}]}),
        expect![[r#"
        spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used
        spec.containers[0].restartPolicyRules[0].action: Unsupported value: "Reboot": supported values: "Restart", "RestartAllContainers"
        spec.containers[0].restartPolicyRules[0].exitCodes.operator: Unsupported value: "Gt": supported values: "In", "NotIn""#]],
    );
}

#[test]
fn init_containers() {
    spec(
        json!({"initContainers": [{"name": "c", "image": "i", "livenessProbe": {"exec": {"command": ["a"]}}},
        {"name": "s", "image": "i", "restartPolicy": "Always", "livenessProbe": {"exec": {"command": ["a"]}}},
        {"name": "t", "image": "i", "restartPolicy": "Sometimes", "lifecycle": {}}]}),
        expect![[r#"
            spec.initContainers[0].name: Duplicate value: "c"
            spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always
            spec.initContainers[2].restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure"
            spec.initContainers[2].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always"#]],
    );
}

#[test]
fn environment() {
    let from = |source: Value| json!({"env": [{"name": "A", "valueFrom": source}]});
    container(
        json!({"env": [{"name": ""}, {"name": "a=b"}, {"name": "x.y-z"}]}),
        expect![[r#"
        spec.containers[0].env[0].name: Required value
        spec.containers[0].env[1].name: Invalid value: "a=b": a valid environment variable name must consist only of printable ASCII characters other than '='"#]],
    );
    container(
        from(json!({})),
        expect![[
            r#"spec.containers[0].env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"#
        ]],
    );
    container(
        from(json!({"fieldRef": {"fieldPath": "spec.containers"}})),
        expect![[
            r#"spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.containers": error converting fieldPath: field label not supported: spec.containers"#
        ]],
    );
    container(
        from(json!({"fieldRef": {"fieldPath": "metadata.labels"}})),
        expect![[
            r#"spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "metadata.labels": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs""#
        ]],
    );
    container(
        from(json!({"fieldRef": {"fieldPath": "metadata.labels['a b']"}})),
        expect![[
            r#"spec.containers[0].env[0].valueFrom.fieldRef: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"#
        ]],
    );
    container(from(json!({"fieldRef": {"fieldPath": "metadata.annotations['a/B']"}})), expect![""]);
    container(
        from(json!({"resourceFieldRef": {"resource": "limits.gpu"}})),
        expect![[
            r#"spec.containers[0].env[0].valueFrom.resourceFieldRef.resource: Unsupported value: "limits.gpu": supported values: "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory""#
        ]],
    );
    container(
        from(json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1k"}})),
        expect![[
            r#"spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: "limits.cpu": only divisor's values 1m and 1 are supported with the cpu resource"#
        ]],
    );
    container(
        from(json!({"secretKeyRef": {"name": "", "key": ""}})),
        expect![[r#"
        spec.containers[0].env[0].valueFrom.secretKeyRef.name: Invalid value: "": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        spec.containers[0].env[0].valueFrom.secretKeyRef.key: Required value"#]],
    );
    container(
        from(json!({"configMapKeyRef": {"name": "a", "key": "b"}, "secretKeyRef": {"name": "a", "key": "b"}})),
        expect![[
            r#"spec.containers[0].env[0].valueFrom: Invalid value: "": may not have more than one field specified at a time"#
        ]],
    );
    container(
        from(json!({"fileKeyRef": {"volumeName": "x", "path": "../a", "key": "k"}})),
        expect![[r#"
        spec.containers[0].env[0].valueFrom.fileKeyRef.path: Invalid value: "../a": must not contain '..'
        spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Not found: "x""#]],
    );
    container(
        json!({"envFrom": [{}, {"prefix": "=", "configMapRef": {"name": ""}}]}),
        expect![[r#"
        spec.containers[0].envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`
        spec.containers[0].envFrom[1].prefix: Invalid value: "=": a valid environment variable name must consist only of printable ASCII characters other than '='
        spec.containers[0].envFrom[1].configMapRef.name: Required value"#]],
    );
}

#[test]
fn mounts() {
    container(
        json!({"volumeMounts": [{"name": "x", "mountPath": ""}, {"name": "v", "mountPath": "/a", "subPath": "/../b"},
        {"name": "v", "mountPath": "/a", "subPathExpr": "$(A)", "mountPropagation": "Bidirectional"},
        {"name": "v", "mountPath": "/b", "recursiveReadOnly": "Enabled"}]}),
        expect![[r#"
            spec.containers[0].volumeMounts[0].name: Not found: "x"
            spec.containers[0].volumeMounts[0].mountPath: Required value
            spec.containers[0].volumeMounts.subPath: Invalid value: "/../b": must be a relative path
            spec.containers[0].volumeMounts.subPath: Invalid value: "/../b": must not contain '..'
            spec.containers[0].volumeMounts[2].mountPath: Invalid value: "/a": must be unique
            spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers
            spec.containers[0].volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true"#]],
    );
    container(
        json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/../a"}]}),
        expect![[r#"
        spec.containers[0].volumeDevices[0].name: Invalid value: "v": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode
        spec.containers[0].volumeDevices[0].devicePath: Invalid value: "/dev/../a": can not contain backsteps ('..')"#]],
    );
}

#[test]
fn probes_and_hooks() {
    container(
        json!({"livenessProbe": {}, "readinessProbe": {"exec": {}, "tcpSocket": {"port": 0},
        "terminationGracePeriodSeconds": 3}, "startupProbe": {"successThreshold": 2, "timeoutSeconds": -1,
        "httpGet": {"port": "UPPER", "scheme": "ftp", "httpHeaders": [{"name": "a b", "value": ""}]}}}),
        expect![[r#"
            spec.containers[0].livenessProbe: Required value: must specify a handler type
            spec.containers[0].readinessProbe.exec.command: Required value
            spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type
            spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 3: must not be set for readinessProbes
            spec.containers[0].startupProbe.httpGet.port: Invalid value: "UPPER": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)
            spec.containers[0].startupProbe.httpGet.port: Invalid value: "UPPER": must contain at least one letter (a-z)
            spec.containers[0].startupProbe.httpGet.scheme: Unsupported value: "ftp": supported values: "HTTP", "HTTPS"
            spec.containers[0].startupProbe.httpGet.httpHeaders: Invalid value: "a b": a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')
            spec.containers[0].startupProbe.timeoutSeconds: Invalid value: -1: must be greater than or equal to 0
            spec.containers[0].startupProbe.successThreshold: Invalid value: 2: must be 1"#]],
    );
    container(
        json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}, "postStart": {},
        "stopSignal": "SIGTERM"}}),
        expect![[r#"
            spec.containers[0].lifecycle.postStart: Required value: must specify a handler type
            spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)
            spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`"#]],
    );
}

#[test]
fn resources() {
    let of = |resources: Value| json!({"resources": resources});
    container(
        of(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2", "memory": "-1"}})),
        expect![[r#"
        spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1
        spec.containers[0].resources.requests[memory]: Invalid value: "-1": must be greater than or equal to 0"#]],
    );
    container(
        of(json!({"limits": {"cpu": "lots", "gpu": "1", "pods": "1"}})),
        expect![[r#"
        spec.containers[0].resources.limits[cpu]: Invalid value: "lots": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
        spec.containers[0].resources.limits[gpu]: Invalid value: "gpu": must be a standard resource type or fully qualified
        spec.containers[0].resources.limits[gpu]: Invalid value: "gpu": must be a standard resource for containers
        spec.containers[0].resources.limits[pods]: Invalid value: "pods": must be a standard resource for containers
        spec.containers[0].resources.requests[cpu]: Invalid value: "lots": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
        spec.containers[0].resources.requests[gpu]: Invalid value: "gpu": must be a standard resource type or fully qualified
        spec.containers[0].resources.requests[gpu]: Invalid value: "gpu": must be a standard resource for containers
        spec.containers[0].resources.requests[pods]: Invalid value: "pods": must be a standard resource for containers"#]],
    );
    container(
        of(json!({"limits": {"nvidia.com/gpu": "0.5"}})),
        expect![[r#"
        spec.containers[0].resources.limits[nvidia.com/gpu]: Invalid value: "500m": must be an integer
        spec.containers[0].resources.requests[nvidia.com/gpu]: Invalid value: "500m": must be an integer"#]],
    );
    container(
        of(json!({"requests": {"nvidia.com/gpu": "1"}})),
        expect![
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources"
        ],
    );
    container(
        of(json!({"limits": {"nvidia.com/gpu": "2"}, "requests": {"nvidia.com/gpu": "1"}})),
        expect![[
            r#"spec.containers[0].resources.requests: Invalid value: "1": must be equal to nvidia.com/gpu limit of 2"#
        ]],
    );
    container(
        of(json!({"limits": {"hugepages-2Mi": "3Mi"}})),
        expect![[r#"
        spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi
        spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi
        spec.containers[0].resources: Forbidden: HugePages require cpu or memory"#]],
    );
    container(
        of(json!({"claims": [{"name": "a"}]})),
        expect![[
            r#"spec.containers[0].resources.claims[0]: Not found: "a": must be one of the names in pod.spec.resourceClaims which is empty"#
        ]],
    );
    spec(
        json!({"resourceClaims": [{"name": "a", "resourceClaimName": "b"}]}),
        expect!["spec.resourceClaims: Forbidden: not supported by Skiff yet: no driver would prepare the devices"],
    );
    spec(
        json!({"resources": {"limits": {"cpu": "1", "nvidia.com/gpu": "1"}},
        "containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "2"}}}]}),
        expect![[r#"
            spec.resources.limits[nvidia.com/gpu]: Unsupported value: "nvidia.com/gpu": supported values: "cpu", "hugepages-", "memory"
            spec.resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1
            spec.resources.containers[0][cpu].limits: Invalid value: "2": must be less than or equal to pod limits of 1"#]],
    );
}

#[test]
fn volumes() {
    let of = |volumes: Value| json!({"volumes": volumes});
    spec(
        of(json!([{"name": "a"}, {"name": "a"}, {"name": ""}, {"name": "A"}])),
        expect![[r#"
        spec.volumes[1].name: Duplicate value: "a"
        spec.volumes[2].name: Required value
        spec.volumes[3].name: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"#]],
    );
    spec(
        of(json!([{"name": "a", "emptyDir": {}, "hostPath": {"path": "/"}, "downwardAPI": {}}])),
        expect![[r#"
        spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type
        spec.volumes[0].downwarAPI: Forbidden: may not specify more than 1 volume type"#]],
    );
    spec(
        of(json!([{"name": "a", "hostPath": {"path": "/a/../b", "type": "Pipe"}}, {"name": "b", "hostPath": {}}])),
        expect![[r#"
            spec.volumes[0].hostPath.path: Invalid value: "/a/../b": must not contain '..'
            spec.volumes[0].hostPath.type: Unsupported value: "Pipe": supported values: "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"
            spec.volumes[1].hostPath.path: Required value"#]],
    );
    spec(
        of(json!([{"name": "a", "configMap": {"name": "", "defaultMode": 1000,
        "items": [{"key": "", "path": "/a"}, {"key": "k", "path": "..a"}]}}])),
        expect![[r#"
            spec.volumes[0].configMap.name: Required value
            spec.volumes[0].configMap.defaultMode: Invalid value: 1000: must be a number between 0 and 0777 (octal), both inclusive
            spec.volumes[0].configMap.items[0].key: Required value
            spec.volumes[0].configMap.items[0].path: Invalid value: "/a": must be a relative path
            spec.volumes[0].configMap.items[1].path: Invalid value: "..a": must not start with '..'"#]],
    );
    spec(
        of(json!([{"name": "a", "secret": {}}, {"name": "b", "emptyDir": {"sizeLimit": "-1"}}])),
        expect![[r#"
        spec.volumes[0].secret.secretName: Required value
        spec.volumes[1].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity"#]],
    );
    spec(
        of(json!([{"name": "a", "downwardAPI": {"items": [{"path": "a"}, {"path": "b",
        "fieldRef": {"fieldPath": "spec.nodeName"}}, {"path": "c", "resourceFieldRef": {"resource": "limits.cpu"}}]}}])),
        expect![[r#"
            spec.volumes[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required
            spec.volumes[0].downwardAPI.fieldRef.fieldPath: Unsupported value: "spec.nodeName": supported values: "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"
            spec.volumes[0].downwardAPI.resourceFieldRef.containerName: Required value"#]],
    );
    spec(
        of(json!([{"name": "a", "projected": {"sources": [
        {"configMap": {"name": "m", "items": [{"key": "k", "path": "p"}]}, "secret": {"name": ""}},
        {"secret": {"name": "s", "items": [{"key": "k", "path": "p"}]}},
        {"serviceAccountToken": {"path": "", "expirationSeconds": 60}}]}}])),
        expect![[r#"
            spec.volumes[0].projected.sources[0].secret.name: Required value
            spec.volumes[0].projected.sources[0]: Forbidden: may not specify more than 1 volume type per source
            spec.volumes[0].projected: Invalid value: "s": conflicting duplicate paths
            spec.volumes[0].projected.sources[2].serviceAccountToken.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes
            spec.volumes[0].projected.path: Required value"#]],
    );
    spec(
        of(json!([{"name": "a", "nfs": {"path": "x"}}, {"name": "b", "persistentVolumeClaim": {}},
        {"name": "c", "csi": {"driver": "A_b"}}, {"name": "d", "gcePersistentDisk": {"pdName": "", "partition": 300}}])),
        expect![[r#"
            spec.volumes[0].nfs.server: Required value
            spec.volumes[0].nfs.path: Invalid value: "x": must be an absolute path
            spec.volumes[1].persistentVolumeClaim.claimName: Required value
            spec.volumes[2].csi.driver: Invalid value: "A_b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.volumes[3].persistentDisk.pdName: Required value
            spec.volumes[3].persistentDisk.partition: Invalid value: 300: must be between 1 and 255, inclusive"#]],
    );
    spec(
        of(json!([{"name": "a", "ephemeral": {"volumeClaimTemplate": {"metadata": {"name": "x"},
        "spec": {"accessModes": ["Write"], "resources": {}}}}}, {"name": "b", "image": {}}])),
        expect![[r#"
            spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set
            spec.volumes[0].ephemeral.volumeClaimTemplate.spec.accessModes: Unsupported value: "Write": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"
            spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value
            spec.volumes[1].image.reference: Required value"#]],
    );
}

#[test]
fn a_projected_token_needs_a_service_account() {
    let token = json!({"serviceAccountName": "",
        "volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]});
    spec(
        token,
        expect![
            "spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set"
        ],
    );
}

#[test]
fn security() {
    spec(
        json!({"securityContext": {"runAsUser": -1, "fsGroup": 1_i64 << 40, "fsGroupChangePolicy": "Never",
        "sysctls": [{"name": "", "value": ""}, {"name": "NET", "value": ""}, {"name": "net.core.x", "value": "1"}],
        "seccompProfile": {"type": "Localhost"}, "appArmorProfile": {"type": "None"}}, "hostNetwork": true,
        "hostPID": true, "shareProcessNamespace": true}),
        expect![[r#"
            spec.securityContext.fsGroup: Invalid value: 1099511627776: must be between 0 and 2147483647, inclusive
            spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive
            spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled
            spec.securityContext.sysctls[0].name: Required value
            spec.securityContext.sysctls[1].name: Invalid value: "NET": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$
            spec.securityContext.sysctls[2].name: Invalid value: "net.core.x": may not be specified when 'hostNetwork' is true
            spec.securityContext.fsGroupChangePolicy: Unsupported value: "Never": supported values: "Always", "OnRootMismatch"
            spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost
            spec.securityContext.appArmorProfile.type: Unsupported value: "None": supported values: "Localhost", "RuntimeDefault", "Unconfined""#]],
    );
    container(
        json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": false,
        "procMount": "Unmasked", "seccompProfile": {"type": ""}}}),
        expect![[r#"
            spec.containers[0].securityContext.procMount: Invalid value: "Unmasked": `hostUsers` must be false to use `Unmasked`
            spec.containers[0].securityContext.seccompProfile.type: Required value: type is required when seccompProfile is set
            spec.containers[0].securityContext: Invalid value: {"allowPrivilegeEscalation":false,"privileged":true,"procMount":"Unmasked","seccompProfile":{"type":""}}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true"#]],
    );
    spec(json!({"hostUsers": false, "hostIPC": true}), expect!["spec.HostIPC: Forbidden: when `hostUsers` is false"]);
}

#[test]
fn names_addresses_and_policies() {
    spec(
        json!({"restartPolicy": "Sometimes", "dnsPolicy": "None", "hostname": "a.b", "subdomain": "A",
        "nodeName": "A", "activeDeadlineSeconds": 0, "priorityClassName": "A", "preemptionPolicy": "Always",
        "runtimeClassName": "", "os": {"name": "plan9"}, "nodeSelector": {"a b": "c d"}}),
        expect![[r#"
            spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"
            spec.nodeSelector: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            spec.nodeSelector: Invalid value: "c d": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
            spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None
            spec.nodeName: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive
            spec.hostname: Invalid value: "a.b": must not contain dots
            spec.subdomain: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.priorityClassName: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.runtimeClassName: Invalid value: "": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.preemptionPolicy: Unsupported value: "Always": supported values: "PreemptLowerPriority", "Never"
            spec.os: Unsupported value: "plan9": supported values: "linux", "windows""#]],
    );
    spec(
        json!({"dnsPolicy": "None", "dnsConfig": {}}),
        expect![
            "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None"
        ],
    );
    spec(
        json!({"dnsConfig": {"nameservers": ["a", "1.1.1.1", "::1", "01.1.1.1"], "searches": ["a_b.", "."],
        "options": [{}]}}),
        expect![[r#"
            spec.dnsConfig.nameservers: Invalid value: ["a","1.1.1.1","::1","01.1.1.1"]: must not have more than 3 nameservers
            spec.dnsConfig.nameservers[0]: Invalid value: "a": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
            spec.dnsConfig.nameservers[3]: Invalid value: "01.1.1.1": must not have leading 0s
            spec.dnsConfig.options[0]: Required value: must not be empty"#]],
    );
    spec(
        json!({"hostAliases": [{"ip": "x", "hostnames": ["A"]}]}),
        expect![[r#"
        spec.hostAliases[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
        spec.hostAliases[0].hostnames[0]: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#]],
    );
    spec(
        json!({"hostnameOverride": "A", "setHostnameAsFQDN": true}),
        expect![[r#"
        spec.hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true
        spec.hostnameOverride: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#]],
    );
    spec(
        json!({"readinessGates": [{"conditionType": "a b"}], "schedulingGates": [{"name": "a"}, {"name": "a"}],
        "nodeName": "n"}),
        expect![[r#"
            spec.readinessGates[0].conditionType: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            spec.schedulingGates[1]: Duplicate value: "a"
            spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"#]],
    );
}

#[test]
fn tolerations_and_spread() {
    spec(
        json!({"tolerations": [{"key": "a b"}, {"operator": "Equal"}, {"key": "a", "operator": "Exists", "value": "v"},
        {"key": "a", "operator": "Gt", "value": "1"}, {"key": "a", "operator": "~"},
        {"key": "a", "effect": "Never"}, {"key": "a", "tolerationSeconds": 3}]}),
        expect![[r#"
            spec.tolerations[0].key: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            spec.tolerations[1].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys"
            spec.tolerations[2].operator: Invalid value: "v": value must be empty when `operator` is 'Exists'
            spec.tolerations[3].operator: Unsupported value: "Gt": supported values: "Equal", "Exists", "Lt", "Gt"
            spec.tolerations[4].operator: Unsupported value: "~": supported values: "Equal", "Exists"
            spec.tolerations[5].effect: Unsupported value: "Never": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"
            spec.tolerations[6].effect: Invalid value: "": effect must be 'NoExecute' when `tolerationSeconds` is set"#]],
    );
    spec(
        json!({"topologySpreadConstraints": [
        {"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "Cry", "minDomains": 0, "nodeTaintsPolicy": "x"},
        {"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["a"]},
        {"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {
            "matchExpressions": [{"key": "a", "operator": "Around"}]}}]}),
        expect![[r#"
            spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero
            spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty
            spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Cry": supported values: "DoNotSchedule", "ScheduleAnyway"
            spec.topologySpreadConstraints[0].minDomains: Invalid value: 0: must be greater than zero
            spec.topologySpreadConstraints[0].minDomains: Invalid value: 0: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not Cry
            spec.topologySpreadConstraints[0].nodeTaintsPolicy: Unsupported value: "x": supported values: "Honor", "Ignore"
            spec.topologySpreadConstraints[1].{topologyKey, whenUnsatisfiable}: Duplicate value: "{z, DoNotSchedule}"
            spec.topologySpreadConstraints[1].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set
            spec.topologySpreadConstraints[2].labelSelector.matchExpressions[0].operator: Invalid value: "Around": not a valid selector operator"#]],
    );
}

#[test]
fn affinity() {
    spec(
        json!({"affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "a", "operator": "In"}, {"key": "a", "operator": "Gt", "values": ["1", "2"]},
                    {"key": "", "operator": "Exists", "values": ["x"]}, {"key": "a", "operator": "Is"}],
                "matchFields": [{"key": "metadata.uid", "operator": "Exists"}]}]},
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "preference": {}}]},
        "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "", "namespaces": ["A"],
            "matchLabelKeys": ["a"]}]},
        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 101, "podAffinityTerm": {
            "topologyKey": "z", "labelSelector": {"matchLabels": {"a": "b"}}, "matchLabelKeys": ["b"],
            "mismatchLabelKeys": ["b"]}}]}}}),
        expect![[r#"
            spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'
            spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[1].values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'
            spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[2].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'
            spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[2].key: Invalid value: "": name part must be non-empty
            spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[2].key: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[3].operator: Invalid value: "Is": not a valid selector operator
            spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].operator: Invalid value: "Exists": not a valid selector operator
            spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].key: Invalid value: "metadata.uid": not a valid field selector key
            spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100
            spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].namespace: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set
            spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty
            spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: "": name part must be non-empty
            spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100
            spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.matchLabelKeys[0]: Invalid value: "b": exists in both matchLabelKeys and mismatchLabelKeys"#]],
    );
    spec(
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}}),
        expect![
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term"
        ],
    );
}

#[test]
fn ephemeral_containers_come_later() {
    spec(
        json!({"ephemeralContainers": [{"name": "e", "image": "i", "ports": [{"containerPort": 1}],
        "targetContainerName": "x"}]}),
        expect![[r#"
            spec.ephemeralContainers[0].targetContainerName: Not found: "x"
            spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container
            spec.ephemeralContainers: Forbidden: cannot be set on create"#]],
    );
}

#[test]
fn annotations() {
    let mut object = pod(json!({}));
    object["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x",
        "controller.kubernetes.io/pod-deletion-cost": "+1",
        "container.apparmor.security.beta.kubernetes.io/x": "y",
        "container.seccomp.security.alpha.kubernetes.io/c": "z"});
    check_new::<Pod>(
        object,
        expect![[r#"
        metadata.annotations[kubernetes.io/config.mirror]: Invalid value: "x": must set spec.nodeName if mirror pod annotation is set
        metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "+1": must be a 32bit integer
        metadata.annotations.container.seccomp.security.alpha.kubernetes.io/c: Invalid value: "z": must be a valid seccomp profile
        metadata.annotations[container.apparmor.security.beta.kubernetes.io/x]: Invalid value: "x": container not found
        metadata.annotations[container.apparmor.security.beta.kubernetes.io/x]: Invalid value: "y": invalid AppArmor profile name: "y""#]],
    );
}

#[test]
fn updates() {
    let change = |change: Value, expected: Expect| {
        let old = pod(json!({"nodeName": "n", "tolerations": [{"key": "a", "operator": "Exists"}],
            "activeDeadlineSeconds": 10}));
        let mut new = old.clone();
        new["spec"].as_object_mut().unwrap().extend(change.as_object().cloned().unwrap());
        check_change::<Pod>(old, new, expected);
    };
    change(json!({}), expect![""]);
    change(
        json!({"containers": [{"name": "c", "image": "j", "imagePullPolicy": "Always"}], "activeDeadlineSeconds": 5,
        "tolerations": [{"key": "a", "operator": "Exists", "tolerationSeconds": 3, "effect": ""},
            {"key": "b", "operator": "Exists"}]}),
        expect![[r#"
            spec.tolerations[0].effect: Invalid value: "": effect must be 'NoExecute' when `tolerationSeconds` is set
            spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"#]],
    );
    change(
        json!({"containers": [{"name": "c", "image": "i", "command": ["x"]}]}),
        expect![[r#"
        spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
        + containers[0].command: ["x"]
    "#]],
    );
    change(
        json!({"containers": []}),
        expect![[r#"
        spec.containers: Required value
        spec.containers: Forbidden: pod updates may not add or remove containers"#]],
    );
    change(
        json!({"activeDeadlineSeconds": 11}),
        expect!["spec.activeDeadlineSeconds: Invalid value: 11: must be less than or equal to previous value"],
    );
    change(
        json!({"activeDeadlineSeconds": null}),
        expect![
            "spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value"
        ],
    );
    change(
        json!({"tolerations": []}),
        expect!["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"],
    );
    change(
        json!({"nodeName": "m", "schedulingGates": [{"name": "g"}]}),
        expect![[r#"
        spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'g'
        spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
        - nodeName: "n"
        + nodeName: "m"
    "#]],
    );
}

#[test]
fn updates_of_a_gated_pod() {
    let affinity = |terms: Value| {
        json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    };
    let is_in = |zones: Value| json!({"key": "zone", "operator": "In", "values": zones});
    let change = |change: Value, expected: Expect| {
        let mut old = affinity(json!([{"matchExpressions": [is_in(json!(["a", "b"]))]}]));
        old["schedulingGates"] = json!([{"name": "g"}]);
        old["nodeSelector"] = json!({"disk": "ssd"});
        let old = pod(old);
        let mut new = old.clone();
        new["spec"].as_object_mut().unwrap().extend(change.as_object().cloned().unwrap());
        check_change::<Pod>(old, new, expected);
    };
    change(json!({"schedulingGates": [], "nodeSelector": {"disk": "ssd", "gpu": "yes"}}), expect![""]);
    change(
        json!({"nodeSelector": {"disk": "hdd"}}),
        expect![[
            r#"spec.nodeSelector: Invalid value: {"disk":"hdd"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)"#
        ]],
    );
    let narrower = json!([{"matchExpressions": [is_in(json!(["a", "b"])), {"key": "gpu", "operator": "Exists"}]}]);
    change(affinity(narrower), expect![""]);
    change(
        affinity(json!([{"matchExpressions": [is_in(json!(["c"]))]}])),
        expect![[
            r#"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]: Invalid value: {"matchExpressions":[{"key":"zone","operator":"In","values":["c"]}]}: only additions are allowed (no mutations or deletions)"#
        ]],
    );
    change(
        affinity(json!([{}, {}])),
        expect![
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Invalid value: [{},{}]: no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        ],
    );
}

#[test]
fn status_updates() {
    let change = |old: Value, new: Value, expected: Expect| {
        let with = |status: Value| -> Pod {
            let mut object = pod(json!({"restartPolicy": "OnFailure", "nodeName": "n"}));
            object["status"] = status;
            serde_json::from_value(object).unwrap()
        };
        let mut errors = Errors::default();
        with(new).validate_status_update(&with(old), &mut errors);
        expected.assert_eq(&errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    };
    let container = |state: Value| {
        json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": state}]})
    };
    let ended = |code: i32| container(json!({"terminated": {"exitCode": code}}));
    change(ended(1), container(json!({"running": {}})), expect![""]);
    change(
        ended(0),
        container(json!({"running": {}})),
        expect!["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"],
    );
    change(
        json!({"qosClass": "Burstable"}),
        json!({"qosClass": "BestEffort", "observedGeneration": -1,
        "nominatedNodeName": "m", "conditions": [{"type": "a b", "status": "True"}]}),
        expect![[r#"
            status.conditions[0].Type: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            status.nominatedNodeName: Forbidden: may not be set on pods that are already bound to a node
            status.observedGeneration: Invalid value: -1: must be a non-negative integer
            status.qosClass: Invalid value: "BestEffort": field is immutable"#]],
    );
    change(
        json!({}),
        json!({"podIPs": [{"ip": "1.1.1.1"}, {"ip": "x"}, {"ip": "2.2.2.2"}], "hostIP": "1.1.1.1",
        "hostIPs": [{"ip": "1.1.1.2"}], "resourceClaimStatuses": [{"name": "r"}]}),
        expect![[r#"
            status.resourceClaimStatuses[0].name: Invalid value: "r": must match the name of an entry in `spec.resourceClaims`
            status.podIPs[1]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
            status.podIPs: Invalid value: ["1.1.1.1","x","2.2.2.2"]: may specify no more than one IP for each IP family
            status.hostIPs[0].ip: Invalid value: "1.1.1.2": must be equal to `hostIP`"#]],
    );
}

#[test]
fn subresources() {
    use super::subresources::{validate_ephemeral_containers_update, validate_resize};
    let typed = |spec: Value| -> Pod {
        let mut pod: Pod = serde_json::from_value(pod(spec)).unwrap();
        pod.set_defaults();
        pod
    };
    let lines = |errors: Errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let debug = |image: &str| json!({"ephemeralContainers": [{"name": "e", "image": image}]});
    let (none, one, other) = (typed(json!({})), typed(debug("i")), typed(debug("j")));
    assert_eq!(lines(validate_ephemeral_containers_update(&one, &none)), "");
    expect![[r#"
        spec.ephemeralContainers: Forbidden: existing ephemeral containers "e" may not be removed
    "#]]
    .assert_eq(&lines(validate_ephemeral_containers_update(&none, &one)));
    expect![[r#"
        spec.ephemeralContainers: Forbidden: existing ephemeral containers "e" may not be changed
        - image: "i"
        + image: "j"
    "#]]
    .assert_eq(&lines(validate_ephemeral_containers_update(&other, &one)));

    let sized = |resources: Value| typed(json!({"containers": [{"name": "c", "image": "i", "resources": resources}]}));
    let old = sized(json!({"requests": {"cpu": "1"}}));
    assert_eq!(lines(validate_resize(&sized(json!({"requests": {"cpu": "2"}})), &old)), "");
    expect![[r#"
        spec: Invalid value: null: Pod QOS Class may not change as a result of resizing
        spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"#]]
    .assert_eq(&lines(validate_resize(&sized(json!({})), &old)));
    let more = json!({"requests": {"cpu": "1", "ephemeral-storage": "1Gi"}});
    expect!["spec: Forbidden: only cpu and memory resources are mutable"]
        .assert_eq(&lines(validate_resize(&sized(more), &old)));
}
