//! A certificate authority: it says who holds a key.

use std::net::IpAddr;

use clock::{Chance, Clock};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject};
use time::OffsetDateTime;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use super::{PkiError, certificate::Description};

const AUTHORITY_LIFETIME: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
const LEAF_LIFETIME: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Clocks of nodes may be behind.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// What a certificate is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Usage {
    Client,
    Serving,
}

/// Whom a certificate names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subject {
    /// CN: the user.
    pub user: String,
    /// Os: the groups. A certificate of ours has one at most.
    pub groups: Vec<String>,
    pub usage: Usage,
    /// DNS names that a serving certificate is good for.
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

impl Subject {
    pub fn client(user: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Self { user: user.into(), groups, usage: Usage::Client, names: Vec::new(), addresses: Vec::new() }
    }

    pub fn serving(user: &str, names: &[String], addresses: &[IpAddr]) -> Self {
        let (names, addresses) = (names.to_vec(), addresses.to_vec());
        Self { user: user.into(), groups: Vec::new(), usage: Usage::Serving, names, addresses }
    }
}

/// A certificate with its private key, in PEM.
#[derive(Clone)]
pub struct Issued {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl Issued {
    /// The certificate in DER; empty if the PEM is none.
    pub fn certificate_der(&self) -> Vec<u8> {
        Description::der_of(&self.certificate_pem).unwrap_or_default()
    }
}

/// A certificate authority with its key.
pub struct Authority {
    pub certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
    clock: Clock,
    chance: Chance,
}

impl Authority {
    /// A new one, with a new key.
    pub fn generate(name: &str, clock: Clock, chance: Chance) -> Result<Self, PkiError> {
        let key_pem = generate_key()?;
        let certificate_pem = self_signed(name, &key_pem, &clock, &chance)?;
        Self::from_pem(certificate_pem, &key_pem, clock, chance)
    }

    pub fn from_pem(certificate_pem: String, key_pem: &str, clock: Clock, chance: Chance) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key_pem).map_err(PkiError::Certificate)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(PkiError::Certificate)?;
        Ok(Self { certificate_pem, issuer, clock, chance })
    }

    /// A client certificate with a new key. In Kubernetes the common name is the user, the organization a group;
    /// more than one group is an error.
    pub fn issue_client(&self, user: &str, groups: &[&str]) -> Result<Issued, PkiError> {
        self.issue(&Subject::client(user, groups))
    }

    /// A serving certificate with a new key.
    pub fn issue_serving(&self, user: &str, names: &[String], addresses: &[IpAddr]) -> Result<Issued, PkiError> {
        self.issue(&Subject::serving(user, names, addresses))
    }

    fn issue(&self, subject: &Subject) -> Result<Issued, PkiError> {
        let key_pem = generate_key()?;
        let certificate_pem = self.certify(subject, &key_pem)?;
        Ok(Issued { certificate_pem, key_pem })
    }

    /// A certificate, in PEM, for a key that exists; it lives a year.
    pub fn certify(&self, subject: &Subject, key_pem: &str) -> Result<String, PkiError> {
        let key = KeyPair::from_pem(key_pem).map_err(PkiError::Certificate)?;
        let mut params = params(LEAF_LIFETIME, &self.clock, &self.chance);
        refuse_many(subject.groups.len())?;
        if let Some(group) = subject.groups.first() {
            params.distinguished_name.push(DnType::OrganizationName, group.as_str());
        }
        params.distinguished_name.push(DnType::CommonName, subject.user.as_str());
        for name in &subject.names {
            let name = name.as_str().try_into().map_err(PkiError::Certificate)?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(subject.addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![match subject.usage {
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Usage::Serving => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        let certificate = params.signed_by(&key, &self.issuer).map_err(PkiError::Certificate)?;
        Ok(certificate.pem())
    }

    /// Signs a PKCS#10 request, in PEM, after its signature was found good. Subject and names are the
    /// request's; usages (in the words of CertificateSigningRequest) and lifetime are the caller's. Whether the
    /// requester may have that subject is the caller's to decide before.
    pub fn sign_request(
        &self,
        request_pem: &str,
        usages: &[&str],
        lifetime: SignedDuration,
    ) -> Result<String, PkiError> {
        refuse_many(organizations_in(request_pem)?)?;
        let mut request = CertificateSigningRequestParams::from_pem(request_pem).map_err(PkiError::Certificate)?;
        // Everything else that it asks for, such as to be an authority, is dropped.
        let mut params = params(lifetime, &self.clock, &self.chance);
        params.distinguished_name = request.params.distinguished_name;
        params.subject_alt_names = request.params.subject_alt_names;
        (params.key_usages, params.extended_key_usages) = parse_usages(usages)?;
        request.params = params;
        Ok(request.signed_by(&self.issuer).map_err(PkiError::Certificate)?.pem())
    }
}

/// rcgen keeps one value of each attribute of a name. To lose a group silently would be worse than to refuse.
fn refuse_many(organizations: usize) -> Result<(), PkiError> {
    if organizations > 1 { Err(PkiError::ManyOrganizations(organizations)) } else { Ok(()) }
}

fn organizations_in(request_pem: &str) -> Result<usize, PkiError> {
    let unreadable = || PkiError::Certificate(rcgen::Error::CouldNotParseCertificationRequest);
    let der = CertificateSigningRequestDer::from_pem_slice(request_pem.as_bytes()).map_err(|_| unreadable())?;
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|_| unreadable())?;
    Ok(request.certification_request_info.subject.iter_organization().count())
}

/// A P-256 key in PKCS#8 PEM. Keys come from the operating system's random source, also in a simulation: a
/// key that a seed reproduces is none.
pub fn generate_key() -> Result<String, PkiError> {
    Ok(KeyPair::generate().map_err(PkiError::Certificate)?.serialize_pem())
}

/// The certificate of a new authority over a key, in PEM.
pub fn self_signed(name: &str, key_pem: &str, clock: &Clock, chance: &Chance) -> Result<String, PkiError> {
    let key = KeyPair::from_pem(key_pem).map_err(PkiError::Certificate)?;
    let mut params = params(AUTHORITY_LIFETIME, clock, chance);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
    Ok(params.self_signed(&key).map_err(PkiError::Certificate)?.pem())
}

fn params(lifetime: SignedDuration, clock: &Clock, chance: &Chance) -> CertificateParams {
    let mut serial = [0u8; 16];
    chance.fill(&mut serial);
    // Positive, and never shorter than it looks.
    serial[0] = serial[0] & 0x7f | 0x40;
    let now = clock.now();
    let mut params = CertificateParams::default();
    params.not_before = moment(now - BACKDATE);
    params.not_after = moment(now + lifetime);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    params
}

fn moment(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn parse_usages(usages: &[&str]) -> Result<(Vec<KeyUsagePurpose>, Vec<ExtendedKeyUsagePurpose>), PkiError> {
    let (mut plain, mut extended) = (Vec::new(), Vec::new());
    for usage in usages {
        match *usage {
            "signing" | "digital signature" => plain.push(KeyUsagePurpose::DigitalSignature),
            "content commitment" => plain.push(KeyUsagePurpose::ContentCommitment),
            "key encipherment" => plain.push(KeyUsagePurpose::KeyEncipherment),
            "key agreement" => plain.push(KeyUsagePurpose::KeyAgreement),
            "data encipherment" => plain.push(KeyUsagePurpose::DataEncipherment),
            "client auth" => extended.push(ExtendedKeyUsagePurpose::ClientAuth),
            "server auth" => extended.push(ExtendedKeyUsagePurpose::ServerAuth),
            "code signing" => extended.push(ExtendedKeyUsagePurpose::CodeSigning),
            "email protection" | "s/mime" => extended.push(ExtendedKeyUsagePurpose::EmailProtection),
            "timestamping" => extended.push(ExtendedKeyUsagePurpose::TimeStamping),
            "ocsp signing" => extended.push(ExtendedKeyUsagePurpose::OcspSigning),
            other => return Err(PkiError::UnknownUsage(other.to_owned())),
        }
    }
    Ok((plain, extended))
}
