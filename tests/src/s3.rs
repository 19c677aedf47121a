//! Real S3 servers: s3s-fs, whose buckets are folders, and moto, a second implementation.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use camshaft_common::location::Location;
use camshaft_common::store::{Folder, StoreOptions};
use tempfile::TempDir;

use crate::images::files_below;
use crate::leash::Leash;
use crate::{repository, wait};

const START_LIMIT: Duration = Duration::from_secs(60);
const GRACE_TENTHS: u32 = 0;
/// The access key of every server.
pub const ACCESS_KEY: &str = "camshaft-tests";
/// The secret key of every server.
pub const SECRET_KEY: &str = "s3cret-k3y-that-must-not-show";

/// A running S3 server. It ends when this is dropped.
#[derive(Debug)]
pub struct S3Server {
    // Fields are dropped in order: the process first, then its directory.
    _leash: Leash,
    port: u16,
    directory: TempDir,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    S3sFs,
    Moto,
}

impl S3Server {
    /// The s3s-fs server that the tests of this binary share. Its [`Leash`] ends it with the
    /// process.
    pub fn s3s_fs() -> &'static Self {
        static SHARED: OnceLock<S3Server> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Kind::S3sFs))
    }

    /// The moto server that the tests of this binary share. Its [`Leash`] ends it with the process.
    pub fn moto() -> &'static Self {
        static SHARED: OnceLock<S3Server> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Kind::Moto))
    }

    fn start(kind: Kind) -> Self {
        let directory =
            tempfile::Builder::new().prefix("camshaft-s3-").tempdir().expect("a temporary folder");
        let port = free_port();
        let mut command = match kind {
            Kind::S3sFs => Command::new(repository::tool("bin/s3s-fs")),
            Kind::Moto => Command::new(repository::tool("venv/bin/moto_server")),
        };
        command.args([format!("--port={port}")]);
        match kind {
            Kind::S3sFs => {
                let buckets = directory.path().join("buckets");
                std::fs::create_dir(&buckets).expect("the folder is new");
                command.args(["--host=127.0.0.1", "--access-key", ACCESS_KEY]);
                command.args(["--secret-key", SECRET_KEY]).arg(buckets);
            }
            Kind::Moto => {
                command.arg("--host=127.0.0.1");
            }
        }
        let leash = Leash::start(
            &command,
            &directory.path().join("log"),
            GRACE_TENTHS,
            Some(directory.path()),
        )
        .expect("the server starts");
        wait::until(&format!("{kind:?} listens:\n{}", leash.output()), START_LIMIT, || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        Self { _leash: leash, port, directory, kind }
    }

    /// Makes a bucket. Names must differ between tests.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn make_bucket(&self, name: &str) {
        match self.kind {
            Kind::S3sFs => {
                std::fs::create_dir(self.bucket_folder(name)).expect("the bucket is new");
            }
            // Not every machine has curl, but the venv has Python.
            Kind::Moto => {
                let script = format!(
                    "import urllib.request as u; \
                     u.urlopen(u.Request('http://127.0.0.1:{}/{name}', method='PUT'))",
                    self.port
                );
                let made = Command::new(repository::tool("venv/bin/python"))
                    .args(["-c", &script])
                    .status();
                assert!(made.is_ok_and(|status| status.success()), "bucket {name} was not made");
            }
        }
    }

    /// The folder in which s3s-fs keeps a bucket's objects.
    #[must_use]
    pub fn bucket_folder(&self, name: &str) -> PathBuf {
        self.directory.path().join("buckets").join(name)
    }

    /// The environment variables for a client of this server.
    #[must_use]
    pub fn variables(&self) -> [(String, String); 5] {
        [
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }

    /// The environment variables for a client that connects through a TLS relay at `relay_port` and
    /// trusts the authority in the file `ca`.
    #[must_use]
    pub fn tls_variables(&self, relay_port: u16, ca: &Path) -> [(String, String); 5] {
        let mut variables = self.variables();
        variables[0].1 = format!("https://127.0.0.1:{relay_port}");
        variables[1] = ("AWS_CA_BUNDLE".to_owned(), ca.display().to_string());
        variables
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Uploads every file below `folder` to `url`, keeping the paths.
    ///
    /// # Panics
    /// If a file cannot be read or written.
    pub fn upload(&self, folder: &Path, url: &str) {
        let place = self.folder(url);
        let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
        runtime.block_on(async {
            for file in files_below(folder) {
                let key = file.strip_prefix(folder).ok().and_then(Path::to_str);
                let key = key.expect("a UTF-8 path below the folder");
                let content = std::fs::read(&file).expect("it can be read");
                place.put(key, content, "image/jpeg").await.expect("it can be written");
            }
        });
    }

    /// Opens a folder on this server.
    ///
    /// # Panics
    /// If it cannot be opened.
    #[must_use]
    pub fn folder(&self, url: &str) -> Folder {
        let location: Location = url.parse().expect("a valid URL");
        Folder::open(&location, &StoreOptions::from_variables(self.variables()))
            .expect("the variables are complete")
    }
}

/// A port that was free a moment ago.
///
/// # Panics
/// If there is no free port.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
