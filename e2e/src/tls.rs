//! A certificate authority for one test, with a server certificate for `localhost`.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};

use crate::process::Folder;

/// Paths of the PEM files.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The authority to trust.
    pub authority: String,
    /// The server's certificate.
    pub certificate: String,
    /// The server's private key.
    pub key: String,
}

impl Certificates {
    /// Makes new ones in `folder`.
    pub fn make(folder: &Folder) -> Self {
        let authority_key = KeyPair::generate().expect("a key can be generated");
        let mut params = CertificateParams::new(Vec::new()).expect("no names to refuse");
        // With the usual name, which is the server's as well, OpenSSL would take that for the authority.
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params
            .self_signed(&authority_key)
            .expect("the authority signs itself");
        let issuer = Issuer::from_params(&params, &authority_key);
        let key = KeyPair::generate().expect("a key can be generated");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names)
            .expect("both names are valid")
            .signed_by(&key, &issuer)
            .expect("the authority signs");
        Self {
            authority: folder.write("ca.pem", &authority.pem()),
            certificate: folder.write("server.pem", &certificate.pem()),
            key: folder.write("server-key.pem", &key.serialize_pem()),
        }
    }

    /// Lines of a server's or a Sentinel's configuration that make it listen with them.
    pub fn lines(&self, port: u16) -> Vec<String> {
        vec![
            format!("tls-port {port}"),
            format!("tls-cert-file {}", self.certificate),
            format!("tls-key-file {}", self.key),
            format!("tls-ca-cert-file {}", self.authority),
            "tls-auth-clients no".to_owned(),
        ]
    }
}
