//! A certificate authority for one test, with a server certificate for `localhost`.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

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
}
