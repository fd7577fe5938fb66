//! The cluster's certificates and keys in a directory, laid out as kubeadm does.
//!
//! Opening is idempotent: what is missing is made, private keys are never replaced, and a certificate is made
//! anew for its key when it is about to expire, names somebody else, or lacks a name or address that it should
//! be good for.

mod authority;
mod certificate;
mod kubeconfig;
mod tls;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clock::{Chance, Clock};
use jiff::SignedDuration;

pub use authority::{Authority, Issued, Subject, Usage};
use certificate::Description;
pub use kubeconfig::kubeconfig;
pub use tls::{client_config, server_config};

/// A certificate that lives shorter than this is made anew.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Why the cluster's certificates cannot be had. Nobody retries: a person must look.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} exists but its private key {key} does not: put it back, or remove the certificate to start anew")]
    KeyMissing { path: PathBuf, key: PathBuf },
    #[error("a certificate or key cannot be read or made: {0}")]
    Certificate(rcgen::Error),
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    #[error("a certificate for {0} organizations cannot be made, only for one")]
    ManyOrganizations(usize),
    #[error("{0:?} is no key usage")]
    UnknownUsage(String),
}

/// Names and addresses under which a server is reached, beside the usual ones.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Endpoints {
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

/// The certificates and keys of a cluster.
pub struct Pki {
    directory: PathBuf,
    /// Signs clients and servers of the cluster.
    pub cluster: Authority,
    /// Signs the API server when it speaks to aggregated API servers.
    pub front_proxy: Authority,
    clock: Clock,
}

impl Pki {
    /// Opens the directory, which is made if needed, with both authorities in it.
    pub fn open(directory: &Path, clock: Clock, chance: Chance) -> Result<Self, PkiError> {
        fs::create_dir_all(directory).map_err(|source| PkiError::Write { path: directory.into(), source })?;
        let authority = |file: &str, name: &str| open_authority(directory, file, name, &clock, &chance);
        let cluster = authority("ca", "kubernetes")?;
        let front_proxy = authority("front-proxy-ca", "front-proxy-ca")?;
        Ok(Self { directory: directory.into(), cluster, front_proxy, clock })
    }

    /// What the API server serves with. `service_address` is the first of the Service range; both loopback
    /// addresses and the in-cluster names are always there.
    pub fn api_server(&self, service_address: IpAddr, endpoints: &Endpoints) -> Result<Issued, PkiError> {
        let usual =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
        let mut names: Vec<String> = usual.into_iter().chain(["localhost"]).map(str::to_owned).collect();
        names.extend(endpoints.names.iter().cloned());
        let mut addresses = vec![service_address, IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        addresses.extend(&endpoints.addresses);
        self.obtain(&self.cluster, "apiserver", &Subject::serving("kube-apiserver", &names, &addresses))
    }

    /// As which the API server calls kubelets.
    pub fn kubelet_client(&self) -> Result<Issued, PkiError> {
        let subject = Subject::client("kube-apiserver-kubelet-client", &["system:masters"]);
        self.obtain(&self.cluster, "apiserver-kubelet-client", &subject)
    }

    /// As which the API server calls aggregated API servers.
    pub fn front_proxy_client(&self) -> Result<Issued, PkiError> {
        self.obtain(&self.front_proxy, "front-proxy-client", &Subject::client("front-proxy-client", &[]))
    }

    /// The cluster's owner.
    pub fn admin(&self) -> Result<Issued, PkiError> {
        self.obtain(&self.cluster, "admin", &Subject::client("kubernetes-admin", &["system:masters"]))
    }

    /// `kube-scheduler`, `kube-controller-manager` or `kube-proxy`, as the user `system:<component>`.
    pub fn component(&self, component: &str) -> Result<Issued, PkiError> {
        self.obtain(&self.cluster, component, &Subject::client(&format!("system:{component}"), &[]))
    }

    /// As which a node's kubelet calls the API server.
    pub fn node_client(&self, node: &str) -> Result<Issued, PkiError> {
        let subject = Subject::client(&format!("system:node:{node}"), &["system:nodes"]);
        self.obtain(&self.cluster, &format!("kubelet-client-{node}"), &subject)
    }

    /// What a node's kubelet serves with.
    pub fn node_serving(&self, node: &str, endpoints: &Endpoints) -> Result<Issued, PkiError> {
        let mut names = vec![node.to_owned()];
        names.extend(endpoints.names.iter().filter(|name| *name != node).cloned());
        let mut subject = Subject::serving(&format!("system:node:{node}"), &names, &endpoints.addresses);
        subject.groups.push("system:nodes".into());
        self.obtain(&self.cluster, &format!("kubelet-{node}"), &subject)
    }

    /// The private key, in PEM, that signs ServiceAccount tokens; its public half lies beside it.
    pub fn service_account_key(&self) -> Result<String, PkiError> {
        let pem = obtain_key(&self.path("sa", "key"))?;
        let public = self.path("sa", "pub");
        if !exists(&public)? {
            let pair = rcgen::KeyPair::from_pem(&pem).map_err(PkiError::Certificate)?;
            replace(&public, &pair.public_key_pem(), PUBLIC_MODE)?;
        }
        Ok(pem)
    }

    fn path(&self, file: &str, extension: &str) -> PathBuf {
        self.directory.join(format!("{file}.{extension}"))
    }

    /// The certificate in the file if it is still good, else a new one for the key beside it.
    fn obtain(&self, authority: &Authority, file: &str, subject: &Subject) -> Result<Issued, PkiError> {
        let path = self.path(file, "crt");
        let key_pem = obtain_key(&self.path(file, "key"))?;
        if let Some(certificate_pem) = read(&path)?.filter(|pem| self.is_good(authority, pem, &key_pem, subject)) {
            return Ok(Issued { certificate_pem, key_pem });
        }
        let certificate_pem = authority.certify(subject, &key_pem)?;
        tracing::info!(path = %path.display(), user = subject.user, "certificate issued");
        replace(&path, &certificate_pem, PUBLIC_MODE)?;
        Ok(Issued { certificate_pem, key_pem })
    }

    fn is_good(&self, authority: &Authority, pem: &str, key_pem: &str, subject: &Subject) -> bool {
        let (Some(is), Some(by)) = (Description::of(pem), Description::of(&authority.certificate_pem)) else {
            return false;
        };
        let belongs = is_for_key(pem, key_pem);
        is.not_after.duration_since(self.clock.now()) > RENEW_BEFORE
            && is.authority_identifier == by.key_identifier
            && is.serves(subject)
            && belongs
    }
}

/// Whether the certificate's public key is that of the private key.
fn is_for_key(certificate_pem: &str, key_pem: &str) -> bool {
    let (Some(der), Ok(pair)) = (Description::der_of(certificate_pem), rcgen::KeyPair::from_pem(key_pem)) else {
        return false;
    };
    let parsed = x509_parser::parse_x509_certificate(&der);
    parsed.is_ok_and(|(_, certificate)| {
        certificate.public_key().subject_public_key.data.as_ref() == pair.public_key_raw()
    })
}

fn open_authority(
    directory: &Path,
    file: &str,
    name: &str,
    clock: &Clock,
    chance: &Chance,
) -> Result<Authority, PkiError> {
    let (path, key) = (directory.join(format!("{file}.crt")), directory.join(format!("{file}.key")));
    let certificate = read(&path)?;
    if certificate.is_some() && !exists(&key)? {
        return Err(PkiError::KeyMissing { path, key });
    }
    let key_pem = obtain_key(&key)?;
    let certificate_pem = match certificate {
        Some(pem) => pem,
        None => {
            let pem = authority::self_signed(name, &key_pem, clock, chance)?;
            replace(&path, &pem, PUBLIC_MODE)?;
            pem
        }
    };
    let expires = Description::of(&certificate_pem).map(|certificate| certificate.not_after);
    if expires.is_some_and(|at| at.duration_since(clock.now()) < RENEW_BEFORE) {
        tracing::warn!(path = %path.display(), "the certificate authority is about to expire");
    }
    Authority::from_pem(certificate_pem, &key_pem, clock.clone(), chance.clone())
}

const SECRET_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;

/// Reads a private key, or makes it; two processes that make it at once get the same one.
fn obtain_key(path: &Path) -> Result<String, PkiError> {
    if let Some(pem) = read(path)? {
        return Ok(pem);
    }
    let temporary = write_beside(path, &authority::generate_key()?, SECRET_MODE)?;
    // A link never replaces what is there.
    let linked = fs::hard_link(&temporary, path);
    let removed = fs::remove_file(&temporary);
    match linked.and(removed) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(PkiError::Write { path: path.into(), source: error })
        }
        _ => read(path)?.ok_or_else(|| PkiError::Read { path: path.into(), source: io::ErrorKind::NotFound.into() }),
    }
}

/// Writes a file that only its owner may read, whole or not at all: for kubeconfigs.
pub fn write_secret(path: &Path, text: &str) -> Result<(), PkiError> {
    replace(path, text, SECRET_MODE)
}

fn replace(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let temporary = write_beside(path, text, mode)?;
    fs::rename(&temporary, path).map_err(|source| PkiError::Write { path: path.into(), source })
}

fn write_beside(path: &Path, text: &str, mode: u32) -> Result<PathBuf, PkiError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = |file: &mut File| file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary);
    opened
        .and_then(|mut file| write(&mut file))
        .map_err(|source| PkiError::Write { path: temporary.clone(), source })?;
    Ok(temporary)
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::Read { path: path.into(), source }),
    }
}

fn exists(path: &Path) -> Result<bool, PkiError> {
    path.try_exists().map_err(|source| PkiError::Read { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, time::Duration};

    use super::*;

    fn open(directory: &Path, clock: &Clock) -> Pki {
        Pki::open(directory, clock.clone(), Chance::seeded(1)).unwrap()
    }

    const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));

    #[test]
    fn opening_twice_changes_nothing() {
        let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::machine());
        let endpoints = Endpoints { names: vec!["box".into()], addresses: vec!["192.0.2.7".parse().unwrap()] };
        let all = || {
            let pki = open(directory.path(), &clock);
            let issued = [
                pki.api_server(FIRST, &endpoints).unwrap(),
                pki.admin().unwrap(),
                pki.component("kube-scheduler").unwrap(),
                pki.node_client("n1").unwrap(),
                pki.node_serving("n1", &endpoints).unwrap(),
                pki.front_proxy_client().unwrap(),
            ];
            let mut texts = vec![pki.cluster.certificate_pem.clone(), pki.service_account_key().unwrap()];
            texts.extend(issued.into_iter().flat_map(|issued| [issued.certificate_pem, issued.key_pem]));
            texts
        };
        assert_eq!(all(), all());
        let mode = |file: &str| fs::metadata(directory.path().join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("ca.key"), mode("sa.key"), mode("admin.key"), mode("ca.crt")), (0o600, 0o600, 0o600, 0o644));
        let files = fs::read_dir(directory.path()).unwrap();
        assert!(files.into_iter().all(|file| !file.unwrap().file_name().to_string_lossy().starts_with('.')));
    }

    #[test]
    fn certificates_say_who_and_where() {
        let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::machine());
        let pki = open(directory.path(), &clock);
        let node = Description::of(&pki.node_client("n1").unwrap().certificate_pem).unwrap();
        assert_eq!(node.subject, Subject::client("system:node:n1", &["system:nodes"]));
        let server = Description::of(&pki.api_server(FIRST, &Endpoints::default()).unwrap().certificate_pem).unwrap();
        assert!(server.subject.names.contains(&"kubernetes.default.svc".to_owned()));
        assert!(server.subject.addresses.contains(&FIRST));
        let more = Endpoints { names: Vec::new(), addresses: vec!["192.0.2.7".parse().unwrap()] };
        let server = Description::of(&pki.api_server(FIRST, &more).unwrap().certificate_pem).unwrap();
        assert!(server.subject.addresses.contains(&more.addresses[0]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_is_renewed_for_the_same_key() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let first = open(directory.path(), &clock).admin().unwrap();
        tokio::time::advance(Duration::from_secs(334 * 24 * 3600)).await;
        assert_eq!(open(directory.path(), &clock).admin().unwrap().certificate_pem, first.certificate_pem);
        tokio::time::advance(Duration::from_secs(2 * 24 * 3600)).await;
        let second = open(directory.path(), &clock).admin().unwrap();
        assert_ne!(second.certificate_pem, first.certificate_pem);
        assert_eq!(second.key_pem, first.key_pem);
    }

    #[test]
    fn a_lost_authority_key_is_said_and_another_authority_reissues() {
        let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::machine());
        let first = open(directory.path(), &clock).admin().unwrap();
        fs::remove_file(directory.path().join("ca.key")).unwrap();
        let error = Pki::open(directory.path(), clock.clone(), Chance::seeded(1)).err().unwrap();
        assert!(matches!(error, PkiError::KeyMissing { .. }), "{error}");
        fs::remove_file(directory.path().join("ca.crt")).unwrap();
        assert_ne!(open(directory.path(), &clock).admin().unwrap().certificate_pem, first.certificate_pem);
    }

    #[test]
    fn requests_are_signed_as_asked_and_never_as_an_authority() {
        let authority = Authority::generate("ca", Clock::machine(), Chance::seeded(1)).unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["n1".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:n1");
        let key = rcgen::KeyPair::generate().unwrap();
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let usages = ["digital signature", "client auth"];
        let signed = authority.sign_request(&request, &usages, SignedDuration::from_hours(24)).unwrap();
        let mut wanted = Subject::client("system:node:n1", &["system:nodes"]);
        wanted.names.push("n1".into());
        assert_eq!(Description::of(&signed).unwrap().subject, wanted);
        assert!(matches!(authority.issue_client("x", &["a", "b"]), Err(PkiError::ManyOrganizations(2))));
        assert!(authority.sign_request(&request, &["flying"], SignedDuration::from_hours(1)).is_err());
        assert!(authority.sign_request("nonsense", &usages, SignedDuration::from_hours(1)).is_err());
    }

    #[test]
    fn the_kubeconfig_is_what_kubectl_reads() {
        let authority = Authority::generate("ca", Clock::machine(), Chance::seeded(1)).unwrap();
        let admin = authority.issue_client("admin", &["system:masters"]).unwrap();
        let text = kubeconfig("skiff", "https://127.0.0.1:6443", &authority.certificate_pem, &admin);
        let config: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(config["current-context"], "skiff");
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
        assert_eq!(config["contexts"][0]["context"]["user"], config["users"][0]["name"]);
        assert!(config["users"][0]["user"]["client-key-data"].as_str().unwrap().len() > 100);
    }
}
