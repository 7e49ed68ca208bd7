//! TLS towards Redis, from the files that the configuration names.

use std::{io, sync::Arc};

use policy::config::Tls;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{
        CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName,
        pem::{self, PemObject as _},
    },
};

use crate::config::{Credentials, Secret};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file is missing, unreadable or not PEM.
    #[error("failed to read {what} from {path:?}: {source}")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// The file.
        path: String,
        /// Why.
        source: pem::Error,
    },
    /// A certificate file without certificates.
    #[error("{path:?} (tls.{field}) holds no PEM certificate")]
    NoCertificate {
        /// The field that names it.
        field: &'static str,
        /// The file.
        path: String,
    },
    /// A client certificate without its key, or the other way round.
    #[error("tls.certFile and tls.keyFile must be given together")]
    HalfAPair,
    /// rustls does not accept certificate or key.
    #[error("failed to set up TLS: {0}")]
    Rejected(rustls::Error),
    /// The system's certificate authorities cannot be read.
    #[error("failed to read the system's certificate authorities: {0}; name a file in tls.caFile")]
    System(io::Error),
    /// Not a host name.
    #[error("{name:?} (tls.serverName or host) cannot be verified in a certificate: {source}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        source: InvalidDnsNameError,
    },
}

/// Everything a handshake needs.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// Trust, client certificate, protocol versions.
    pub config: Arc<ClientConfig>,
    /// The name to verify.
    pub name: ServerName<'static>,
    /// That name is the configuration's, not the host's.
    named: bool,
}

impl TlsSettings {
    /// Reads the files of `tls` for a server called `host`; what `given` holds counts instead.
    pub fn read(tls: &Tls, host: &str, given: &Credentials) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Rejected)?
            .with_root_certificates(roots(tls, given)?);
        let certificate = Pem::of(given.client_certificate.as_ref(), tls.cert_file.as_ref());
        let key = Pem::of(given.client_key.as_ref(), tls.key_file.as_ref());
        let mut config = match (certificate, key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => builder
                .with_client_auth_cert(certificate.certificates("certFile")?, key.private_key()?)
                .map_err(TlsError::Rejected)?,
            _ => return Err(TlsError::HalfAPair),
        };
        // A resumed session is not verified again: a certificate that has expired, or an authority
        // that is trusted no longer, would be accepted at every reconnect.
        config.resumption = Resumption::disabled();
        let name = tls.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|source| TlsError::Name {
            name: name.to_owned(),
            source,
        })?;
        Ok(Self {
            config: Arc::new(config),
            name,
            named: tls.server_name.is_some(),
        })
    }

    /// The same for another server; its host is the name to verify unless one is configured.
    #[must_use]
    pub fn at(&self, host: &str) -> Self {
        let name = ServerName::try_from(host.to_owned());
        match name {
            Ok(name) if !self.named => Self {
                name,
                ..self.clone()
            },
            _ => self.clone(),
        }
    }
}

/// PEM text that was given, possibly with the file it was read from, or a file.
enum Pem<'a> {
    Text(&'a Secret, Option<&'a String>),
    File(&'a String),
}

impl<'a> Pem<'a> {
    fn of(text: Option<&'a Secret>, file: Option<&'a String>) -> Option<Self> {
        text.map(|text| Self::Text(text, file))
            .or(file.map(Self::File))
    }

    fn path(&self) -> String {
        match self {
            Self::Text(_, None) => "the Secret".to_owned(),
            Self::Text(_, Some(path)) | Self::File(path) => (*path).clone(),
        }
    }

    fn certificates(&self, field: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let failed = |source| TlsError::Pem {
            what: "certificates",
            path: self.path(),
            source,
        };
        let certificates = match self {
            Self::Text(text, _) => {
                CertificateDer::pem_slice_iter(text.expose().as_bytes()).collect()
            }
            Self::File(path) => CertificateDer::pem_file_iter(path).and_then(Iterator::collect),
        };
        let certificates: Vec<_> = certificates.map_err(failed)?;
        if certificates.is_empty() {
            return Err(TlsError::NoCertificate {
                field,
                path: self.path(),
            });
        }
        Ok(certificates)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let key = match self {
            Self::Text(text, _) => PrivateKeyDer::from_pem_slice(text.expose().as_bytes()),
            Self::File(path) => PrivateKeyDer::from_pem_file(path),
        };
        key.map_err(|source| TlsError::Pem {
            what: "a private key",
            path: self.path(),
            source,
        })
    }
}

fn roots(tls: &Tls, given: &Credentials) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = Pem::of(given.ca_certificate.as_ref(), tls.ca_file.as_ref()) {
        for certificate in pem.certificates("caFile")? {
            roots.add(certificate).map_err(TlsError::Rejected)?;
        }
        return Ok(roots);
    }
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let cause = found
            .errors
            .into_iter()
            .next()
            .map(|error| error.to_string());
        let cause = cause.unwrap_or_else(|| "there are none".to_owned());
        return Err(TlsError::System(io::Error::other(cause)));
    }
    roots.add_parsable_certificates(found.certs);
    Ok(roots)
}
