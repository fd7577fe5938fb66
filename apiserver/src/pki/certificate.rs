//! What a certificate in a file says, to decide whether it is still the one that is wanted.

use std::net::IpAddr;

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::authority::{Subject, Usage};

/// The parts of a certificate that decide about its renewal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Description {
    pub subject: Subject,
    pub not_after: Timestamp,
    /// Of its own key.
    pub key_identifier: Vec<u8>,
    /// Of the key that signed it.
    pub authority_identifier: Vec<u8>,
}

impl Description {
    pub fn der_of(pem: &str) -> Option<Vec<u8>> {
        CertificateDer::from_pem_slice(pem.as_bytes()).ok().map(|der| der.to_vec())
    }

    /// `None` where the PEM is no certificate.
    pub fn of(pem: &str) -> Option<Self> {
        let der = Self::der_of(pem)?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let named = certificate.subject();
        let mut description = Self {
            subject: Subject {
                user: named.iter_common_name().find_map(|name| name.as_str().ok()).unwrap_or_default().into(),
                groups: named.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect(),
                usage: Usage::Client,
                names: Vec::new(),
                addresses: Vec::new(),
            },
            not_after: Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?,
            key_identifier: Vec::new(),
            authority_identifier: Vec::new(),
        };
        for extension in certificate.extensions() {
            description.read(extension.parsed_extension());
        }
        Some(description)
    }

    fn read(&mut self, extension: &ParsedExtension<'_>) {
        match extension {
            ParsedExtension::SubjectKeyIdentifier(id) => self.key_identifier = id.0.to_vec(),
            ParsedExtension::AuthorityKeyIdentifier(authority) => {
                self.authority_identifier =
                    authority.key_identifier.as_ref().map(|id| id.0.to_vec()).unwrap_or_default();
            }
            ParsedExtension::ExtendedKeyUsage(usage) if usage.server_auth => self.subject.usage = Usage::Serving,
            ParsedExtension::SubjectAlternativeName(alternatives) => {
                for name in &alternatives.general_names {
                    match name {
                        GeneralName::DNSName(name) => self.subject.names.push((*name).to_owned()),
                        GeneralName::IPAddress(bytes) => self.subject.addresses.extend(address(bytes)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether it names whom it should; a serving certificate may be good for more names.
    pub fn serves(&self, wanted: &Subject) -> bool {
        self.subject.user == wanted.user
            && self.subject.groups == wanted.groups
            && self.subject.usage == wanted.usage
            && wanted.names.iter().all(|name| self.subject.names.contains(name))
            && wanted.addresses.iter().all(|address| self.subject.addresses.contains(address))
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
