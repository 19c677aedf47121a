//! A certificate authority, and a relay that adds TLS to a service that has none.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// The address of every service of the tests.
const HERE: &str = "127.0.0.1";

/// A certificate authority. It keeps its files in a temporary directory.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: TempDir,
}

/// A certificate and its private key, as PEM files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Authority {
    /// Makes a new authority, which no program trusts yet.
    ///
    /// # Panics
    /// If its files cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let directory =
            tempfile::Builder::new().prefix("camshaft-ca-").tempdir().expect("a temporary folder");
        let mut params = CertificateParams::new(Vec::new()).expect("no name is a fine name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "An authority of tests");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = params.self_signed(&key).expect("the parameters go together");
        std::fs::write(directory.path().join("ca.pem"), certificate.pem()).expect("it is written");
        Self { issuer: Issuer::new(params, key), directory }
    }

    /// The file with its own certificate, for programs that should trust it.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Issues a certificate for a server at 127.0.0.1, or for a client.
    #[must_use]
    pub fn issue(&self, name: &str) -> Identity {
        self.make(name, HERE, 2999)
    }

    /// Issues a certificate for a server at another host.
    #[must_use]
    pub fn issue_for_host(&self, host: &str) -> Identity {
        self.make(host, host, 2999)
    }

    /// Issues a server's certificate that expired in 1999.
    #[must_use]
    pub fn issue_expired(&self, name: &str) -> Identity {
        self.make(name, HERE, 1999)
    }

    fn make(&self, name: &str, host: &str, last_year: i32) -> Identity {
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a valid name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(1990, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("keys can be made");
        let made = params.signed_by(&key, &self.issuer).expect("the parameters go together");
        let path = |suffix: &str| self.directory.path().join(format!("{name}.{suffix}"));
        let identity = Identity { certificate: path("pem"), key: path("key") };
        std::fs::write(&identity.certificate, made.pem()).expect("it is written");
        std::fs::write(&identity.key, key.serialize_pem()).expect("it is written");
        identity
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// Accepts TLS connections and relays them without TLS. It ends when this is dropped.
#[derive(Debug)]
pub struct TlsRelay {
    port: u16,
    _runtime: Runtime,
}

impl TlsRelay {
    /// Starts a relay to the port `target` of this machine.
    ///
    /// # Panics
    /// If it cannot listen, or the identity's files are not valid.
    #[must_use]
    pub fn start(identity: &Identity, target: u16) -> Self {
        let acceptor = acceptor(&identity.certificate, &identity.key);
        let runtime = Runtime::new().expect("threads can be started");
        let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = runtime.block_on(listening).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(relay(acceptor.clone(), stream, target));
            }
        });
        Self { port, _runtime: runtime }
    }

    /// The relay's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn acceptor(certificate: &Path, key: &Path) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(certificate).expect("a PEM file");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(key).expect("a PEM file with a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they go together");
    TlsAcceptor::from(Arc::new(config))
}

/// Relays one connection. An error, such as a client that refuses the certificate, ends only this
/// connection.
async fn relay(acceptor: TlsAcceptor, stream: TcpStream, target: u16) -> std::io::Result<()> {
    let mut client = acceptor.accept(stream).await?;
    let mut service = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await?;
    tokio::io::copy_bidirectional(&mut client, &mut service).await?;
    Ok(())
}
