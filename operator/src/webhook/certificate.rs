//! The certificate of the webhook: made, served, and verified as the API server does it.
//!
//! Each has an authority of its own whose key is thrown away at once: nobody can ever sign
//! another one that the API server would believe.

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use ring::digest;
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::ring::{default_provider, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::fingerprint::hex;

/// Clocks of nodes may differ by so much.
const SKEW: Duration = Duration::from_hours(1);

/// A certificate, its key, and the authority to trust, in PEM. No `Debug`: there is a key in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The authority.
    pub authority: String,
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// The names that it is for, in one line.
    pub names: String,
}

/// Why a certificate cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It cannot be made.
    #[error("failed to make a certificate: {0}")]
    Make(#[source] rcgen::Error),
    /// It is not PEM.
    #[error("failed to read a certificate: {0}")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// It cannot be used.
    #[error("failed to use a certificate: {0}")]
    Use(#[source] rustls::Error),
    /// It would not be believed.
    #[error("it does not verify against the bundle that the API server has: {0}")]
    Verify(String),
}

/// The names by which the webhook is called. The last two are for a look from inside its pod.
pub fn names(service: &str, namespace: &str) -> Vec<String> {
    vec![
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}"),
        service.to_owned(),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
    ]
}

/// Makes a certificate.
pub fn make(names: &[String], now: u64, lifetime: Duration) -> Result<Pair, CertificateError> {
    let at = |seconds: u64| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    let expires = now + lifetime.as_secs();
    let made = || -> Result<Pair, rcgen::Error> {
        let authority_key = KeyPair::generate()?;
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        authority.not_before = at(now.saturating_sub(SKEW.as_secs()));
        authority.not_after = at(expires);
        // Two authorities in one bundle are told apart by their names.
        let name = format!(
            "pannier-webhook-{now}-{}",
            &fingerprint(&authority_key.public_key_pem())[..8]
        );
        authority.distinguished_name.push(DnType::CommonName, name);
        let own = authority.self_signed(&authority_key)?;
        let issuer = Issuer::new(authority, authority_key);
        let mut params = CertificateParams::new(names.to_vec())?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = at(now.saturating_sub(SKEW.as_secs()));
        params.not_after = at(expires);
        params
            .distinguished_name
            .push(DnType::CommonName, "pannier-webhook");
        let key = KeyPair::generate()?;
        Ok(Pair {
            authority: own.pem(),
            certificate: params.signed_by(&key, &issuer)?.pem(),
            key: key.serialize_pem(),
            expires,
            names: names.join(" "),
        })
    };
    made().map_err(CertificateError::Make)
}

/// A short mark of a text in PEM.
pub fn fingerprint(pem: &str) -> String {
    let hash = digest::digest(&digest::SHA256, pem.as_bytes());
    hex(&hash.as_ref()[..8])
}

// === impl Pair ===

impl Pair {
    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
        CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(CertificateError::Pem)
    }

    /// For the listener.
    pub fn certified(&self) -> Result<CertifiedKey, CertificateError> {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes());
        let key = any_supported_type(&key.map_err(CertificateError::Pem)?);
        let certified = CertifiedKey::new(self.chain()?, key.map_err(CertificateError::Use)?);
        certified.keys_match().map_err(CertificateError::Use)?;
        Ok(certified)
    }

    /// Whether the API server, with this bundle, believes it.
    pub fn verify(&self, bundle: &[u8], name: &str, now: u64) -> Result<(), CertificateError> {
        let failed = |error: &dyn std::fmt::Display| CertificateError::Verify(error.to_string());
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(bundle) {
            let root = root.map_err(CertificateError::Pem)?;
            roots.add(root).map_err(|error| failed(&error))?;
        }
        let provider = Arc::new(default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| failed(&error))?;
        let chain = self.chain()?;
        let (first, rest) = chain
            .split_first()
            .ok_or_else(|| failed(&"there is none"))?;
        let name = ServerName::try_from(name).map_err(|error| failed(&error))?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        verifier
            .verify_server_cert(first, rest, &name, &[], now)
            .map_err(|error| failed(&error))?;
        Ok(())
    }
}

/// What the listener serves now.
#[derive(Default)]
pub struct Served(RwLock<Option<Arc<CertifiedKey>>>);

// === impl Served ===

impl Served {
    /// From the next handshake on.
    pub fn serve(&self, certified: CertifiedKey) {
        *self.0.write() = Some(Arc::new(certified));
    }
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn a_certificate_verifies_against_a_bundle_with_its_authority_by_each_of_its_names() {
        let names = names("hook", "system");
        let one = make(&names, NOW, DAY).unwrap();
        let other = make(&names, NOW, DAY).unwrap();
        let both = format!("{}{}", other.authority, one.authority);
        for name in &names {
            one.verify(both.as_bytes(), name, NOW).unwrap();
        }
        one.certified().unwrap();
        for (bundle, name, at, said) in [
            (
                other.authority.as_str(),
                "hook.system.svc",
                NOW,
                "UnknownIssuer",
            ),
            (
                one.authority.as_str(),
                "another.system.svc",
                NOW,
                "not valid for name",
            ),
            (
                one.authority.as_str(),
                "hook.system.svc",
                NOW + 90_000,
                "expired",
            ),
            ("", "hook.system.svc", NOW, ""),
        ] {
            let error = one.verify(bundle.as_bytes(), name, at).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let names = names("hook", "system");
        let mut one = make(&names, NOW, DAY).unwrap();
        one.key = make(&names, NOW, DAY).unwrap().key;
        assert!(one.certified().is_err());
        "text".clone_into(&mut one.key);
        assert!(one.certified().is_err());
    }
}
