//! The certificate authority of one Kubernetes, and the key that signs its service accounts.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::run::Run;

/// Paths of PEM files.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate or public key.
    pub public: PathBuf,
    /// The private key.
    pub private: PathBuf,
}

/// Signs certificates; its own is in `ca.pem` of the run's folder.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: PathBuf,
}

impl Authority {
    pub fn new(run: &Run) -> Self {
        let key = new_key();
        let mut params = CertificateParams::new(Vec::new()).expect("no names to refuse");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "pannier-e2e");
        let own = params
            .self_signed(&key)
            .expect("the authority signs itself");
        Self {
            certificate: run.write("ca.pem", &own.pem()),
            issuer: Issuer::new(params, key),
        }
    }

    /// The certificate to trust.
    pub fn certificate(&self) -> PathBuf {
        self.certificate.clone()
    }

    /// A certificate of a server with these names and addresses.
    pub fn server(&self, run: &Run, file: &str, names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("the names are valid");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name.push(DnType::CommonName, file);
        let key = new_key();
        let signed = params.signed_by(&key, &self.issuer);
        Pair {
            public: run.write(
                &format!("{file}.pem"),
                &signed.expect("the authority signs").pem(),
            ),
            private: run.write(&format!("{file}-key.pem"), &key.serialize_pem()),
        }
    }
}

/// The key that signs tokens of service accounts.
pub fn service_account_key(run: &Run) -> Pair {
    let key = new_key();
    Pair {
        public: run.write("service-accounts.pem", &key.public_key_pem()),
        private: run.write("service-accounts-key.pem", &key.serialize_pem()),
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key can be generated")
}
