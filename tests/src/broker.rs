//! A real RabbitMQ for a test binary: on free ports, in a directory of its own.
//!
//! Debian's server runs as the user who runs the tests. Tests that only need queues share one
//! broker ([`Broker::shared`]), each with its own virtual host. Tests that stop the broker start
//! their own. It also listens on a port with TLS, which requires a client certificate.
#![expect(clippy::unwrap_used, reason = "a test that can't be set up has to fail")]

use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::leash::Leash;
use crate::tls::{Authority, Identity};

const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const USER: &str = "camshaft";
/// Has characters that a URL must encode.
const PASSWORD: &str = "no-gu3st/h@re";
const START_DEADLINE: Duration = Duration::from_secs(120);
/// Zero: the broker is killed. If it could shut down in order, the tests would prove less.
const GRACE_TENTHS: u32 = 0;
/// Number of virtual hosts of the shared broker. All are defined before it starts: adding them one by
/// one is much slower.
const SHARED_VIRTUAL_HOSTS: usize = 172;
/// The same of a test's own broker: each one makes a start slower.
const OWN_VIRTUAL_HOSTS: usize = 3;

/// A user with rights to some of a virtual host's queues: the rights that docs/SECURITY.md lists.
#[derive(Clone, Copy, Debug)]
pub struct LimitedUser {
    /// Its name.
    pub name: &'static str,
    /// Its password.
    pub password: &'static str,
    configure: &'static str,
    write: &'static str,
    read: &'static str,
}

const OUR_QUEUES: &str = r"^camshaft\.(jobs|suspects|dead|retry\.[0-9]+)$";
/// The same queues, and the bookmarks of enqueues.
const OURS_WITH_BOOKMARKS: &str =
    r"^camshaft\.(jobs|suspects|dead|retry\.[0-9]+|enqueue\.[0-9a-f-]+)$";
/// The same queues, and the notes of runs.
const OURS_TO_ENQUEUE: &str =
    r"^camshaft\.(jobs|suspects|dead|runs|retry\.[0-9]+|enqueue\.[0-9a-f-]+)$";
const PUBLISH: &str = r"^amq\.default$";
const NOTHING: &str = "^$";

/// May enqueue, read the queues' counts, list runs and redrive.
pub const PRODUCER: LimitedUser = LimitedUser {
    name: "camshaft-producer",
    password: "pr0ducer-pa55",
    configure: OURS_TO_ENQUEUE,
    write: PUBLISH,
    read: OURS_TO_ENQUEUE,
};
/// May enqueue, but keep no bookmark: a producer's rights before Camshaft had bookmarks.
pub const PRODUCER_WITHOUT_BOOKMARK: LimitedUser = LimitedUser {
    name: "camshaft-producer-without-bookmark",
    password: "pr0ducer-pa55-2",
    configure: OUR_QUEUES,
    write: PUBLISH,
    read: OUR_QUEUES,
};
/// May enqueue, but leave no note of a run: a producer's rights before there were notes.
pub const PRODUCER_WITHOUT_NOTES: LimitedUser = LimitedUser {
    name: "camshaft-producer-without-notes",
    password: "pr0ducer-pa55-3",
    configure: OURS_WITH_BOOKMARKS,
    write: PUBLISH,
    read: OURS_WITH_BOOKMARKS,
};
/// May work, but not create the queues.
pub const WORKER: LimitedUser = LimitedUser {
    name: "camshaft-worker",
    password: "w0rker-pa55",
    configure: NOTHING,
    write: PUBLISH,
    read: r"^camshaft\.(jobs|suspects)$",
};
/// May only read the queues' counts.
pub const VIEWER: LimitedUser = LimitedUser {
    name: "camshaft-viewer",
    password: "v1ewer-pa55",
    configure: NOTHING,
    write: NOTHING,
    read: NOTHING,
};
/// Number of virtual hosts in which the limited users have rights: `rights-0` and so on.
const RIGHTS_HOSTS: usize = 4;

/// A running broker. It ends when this is dropped.
#[derive(Debug)]
pub struct Broker {
    // Fields are dropped in order: the processes before their directory.
    server: Option<Leash>,
    names: Option<Leash>,
    port: u16,
    distribution_port: u16,
    names_port: u16,
    tls_port: u16,
    virtual_hosts: usize,
    used_virtual_hosts: AtomicUsize,
    used_rights_hosts: AtomicUsize,
    authority: Authority,
    /// Removes the directory, even if the `Broker` is never dropped.
    _janitor: Leash,
    directory: PathBuf,
}

impl Broker {
    /// Starts a broker for one test alone.
    ///
    /// # Panics
    /// If RabbitMQ is not installed or does not start. The message says what to do.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(OWN_VIRTUAL_HOSTS)
    }

    fn start_with(virtual_hosts: usize) -> Self {
        assert!(
            Path::new(SERVER).exists(),
            "no RabbitMQ on this machine ({SERVER}): run tests/run.sh, or apt-get install rabbitmq-server"
        );
        let directory =
            tempfile::Builder::new().prefix("camshaft-broker-").tempdir().unwrap().keep();
        let janitor = Leash::start(
            Command::new("sleep").arg("infinity"),
            &directory.join("janitor.log"),
            GRACE_TENTHS,
            Some(&directory),
        );
        let [port, distribution_port, names_port, tls_port] = free_ports();
        let mut broker = Self {
            server: None,
            names: None,
            port,
            distribution_port,
            names_port,
            tls_port,
            virtual_hosts,
            used_virtual_hosts: AtomicUsize::new(0),
            used_rights_hosts: AtomicUsize::new(0),
            authority: Authority::new(),
            _janitor: janitor.expect("sh and setsid are on every Debian"),
            directory,
        };
        broker.write_configuration();
        broker.start_again();
        broker
    }

    /// The broker that the tests of this binary share. The first call starts it.
    ///
    /// A static is never dropped; its [`Leash`] ends the broker with the process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| Self::start_with(SHARED_VIRTUAL_HOSTS))
    }

    /// A broker URL with a virtual host that no other test uses.
    pub fn url(&self) -> String {
        let number = self.used_virtual_hosts.fetch_add(1, Ordering::Relaxed);
        assert!(number < self.virtual_hosts, "raise …_VIRTUAL_HOSTS in tests/src/broker.rs");
        self.url_of(USER, PASSWORD, &format!("test-{number}"))
    }

    /// The broker URL with this user, password and virtual host.
    pub fn url_of(&self, user: &str, password: &str, virtual_host: &str) -> String {
        let [user, password] =
            [user, password].map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC));
        format!("amqp://{user}:{password}@127.0.0.1:{}/{virtual_host}", self.port)
    }

    /// The same broker URL with another port, such as a relay's.
    pub fn through(&self, url: &str, port: u16) -> String {
        url.replacen(&format!(":{}/", self.port), &format!(":{port}/"), 1)
    }

    /// A new broker URL, as [`Broker::url`] returns it, with another port and a heartbeat of
    /// `heartbeat_seconds`.
    pub fn url_by(&self, port: u16, heartbeat_seconds: u16) -> String {
        format!("{}?heartbeat={heartbeat_seconds}", self.through(&self.url(), port))
    }

    /// Runs `rabbitmqctl` on the broker.
    pub fn control(&self, arguments: &[&str]) {
        let mut command = Command::new("/usr/lib/rabbitmq/bin/rabbitmqctl");
        command
            .args(["-n", &format!("camshaft{}@localhost", self.port)])
            .args(arguments)
            .env("HOME", self.directory.join("home"))
            .env("ERL_EPMD_PORT", self.names_port.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    /// Sets the broker's `consumer_timeout` for channels that are opened later, and has channels
    /// look for late messages twice a second instead of once a minute.
    pub fn set_consumer_timeout(&self, timeout: Duration) {
        let milliseconds = timeout.as_millis();
        let set = format!(
            "application:set_env(rabbit, consumer_timeout, {milliseconds}), \
             application:set_env(rabbit, channel_tick_interval, 500)."
        );
        self.control(&["eval", &set]);
    }

    /// The same URL with TLS.
    ///
    /// # Panics
    /// If `url` does not lead to this broker.
    pub fn with_tls(&self, url: &str) -> String {
        let (plain, encrypted) = (self.address(), self.tls_address());
        assert!(url.contains(&plain), "not this broker's URL");
        url.replace("amqp://", "amqps://").replace(&plain, &encrypted)
    }

    /// The authority that issued the broker's certificate. The broker trusts its client
    /// certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A client certificate that the broker trusts.
    pub fn client(&self) -> Identity {
        self.authority.issue("client")
    }

    /// A virtual host that no other test uses. [`PRODUCER`], [`WORKER`] and [`VIEWER`] have their
    /// limited rights in it, and [`Broker::user`] has all rights.
    pub fn rights_host(&self) -> String {
        let number = self.used_rights_hosts.fetch_add(1, Ordering::Relaxed);
        assert!(number < RIGHTS_HOSTS, "raise RIGHTS_HOSTS in tests/src/broker.rs");
        format!("rights-{number}")
    }

    /// A broker URL for a user with limited rights.
    pub fn limited_url(&self, user: LimitedUser, rights_host: &str) -> String {
        self.url_of(user.name, user.password, rights_host)
    }

    /// The user with all rights.
    pub fn user(&self) -> &'static str {
        USER
    }

    /// The password of [`Broker::user`].
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// Host and port, as error messages show them.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port without TLS.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port with TLS.
    pub fn tls_address(&self) -> String {
        format!("127.0.0.1:{}", self.tls_port)
    }

    /// Kills the broker, and waits until it is gone.
    ///
    /// # Panics
    /// If something listens on its ports two minutes later.
    pub fn stop(&mut self) {
        self.server = None;
        self.names = None;
        // The server's script ends before its Erlang process, which listens for a while longer
        // on a busy machine. A broker that starts meanwhile would seem to be ready at once.
        let deadline = Instant::now() + START_DEADLINE;
        for port in [self.port, self.distribution_port, self.names_port, self.tls_port] {
            while TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
                assert!(Instant::now() < deadline, "the killed broker still has port {port}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Starts it again on the same ports and data, and waits until it can be used.
    pub fn start_again(&mut self) {
        self.stop();
        let deadline = Instant::now() + START_DEADLINE;
        let mut names = Command::new("epmd");
        names.args(["-port", &self.names_port.to_string()]);
        names.env("ERL_EPMD_ADDRESS", "127.0.0.1");
        let names = self.start_service(&names, "epmd.log");
        wait_for_port(&names, self.names_port, deadline);
        self.names = Some(names);
        let server = self.start_service(&self.server_command(), "server.log");
        // The server listens only after all its other parts have started.
        wait_for_port(&server, self.port, deadline);
        self.server = Some(server);
    }

    fn start_service(&self, command: &Command, log: &str) -> Leash {
        let log = self.directory.join(log);
        Leash::start(command, &log, GRACE_TENTHS, None).expect("sh and setsid are on every Debian")
    }

    fn write_configuration(&self) {
        let directory = &self.directory;
        std::fs::write(directory.join("definitions.json"), definitions(self.virtual_hosts))
            .unwrap();
        let Identity { certificate, key } = self.authority.issue("broker");
        let configuration = format!(
            "listeners.tcp.1 = 127.0.0.1:{}
load_definitions = {}
listeners.ssl.1 = 127.0.0.1:{}
ssl_options.cacertfile = {}
ssl_options.certfile = {}
ssl_options.keyfile = {}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
",
            self.port,
            directory.join("definitions.json").display(),
            self.tls_port,
            self.authority.file().display(),
            certificate.display(),
            key.display(),
        );
        std::fs::write(directory.join("rabbitmq.conf"), configuration).unwrap();
        std::fs::write(directory.join("enabled_plugins"), "[].\n").unwrap();
        std::fs::create_dir(directory.join("home")).unwrap();
    }

    fn server_command(&self) -> Command {
        let directory = &self.directory;
        let mut command = Command::new(SERVER);
        command
            .env("HOME", directory.join("home"))
            .env("ERL_EPMD_PORT", self.names_port.to_string())
            .env("RABBITMQ_NODENAME", format!("camshaft{}@localhost", self.port))
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", directory.join("data"))
            .env("RABBITMQ_LOG_BASE", directory.join("log"))
            .env("RABBITMQ_PID_FILE", directory.join("pid"))
            .env("RABBITMQ_CONFIG_FILE", directory.join("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", directory.join("enabled_plugins"))
            // An epmd that Erlang starts would outlive the tests.
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-start_epmd false");
        command
    }
}

/// Users, virtual hosts and permissions, as RabbitMQ imports them.
fn definitions(virtual_hosts: usize) -> String {
    let mut users =
        format!(r#"{{"name":"{USER}","password":"{PASSWORD}","tags":"administrator"}}"#);
    let mut hosts: Vec<_> = (0..virtual_hosts).map(|number| format!("test-{number}")).collect();
    hosts.extend((0..RIGHTS_HOSTS).map(|number| format!("rights-{number}")));
    let mut permissions = Vec::new();
    let mut permit = |user: &str, host: &str, [configure, write, read]: [&str; 3]| {
        permissions.push(format!(
            r#"{{"user":"{user}","vhost":"{host}","configure":"{configure}","write":"{write}","read":"{read}"}}"#
        ));
    };
    for host in &hosts {
        permit(USER, host, [".*"; 3]);
    }
    for user in [PRODUCER, PRODUCER_WITHOUT_BOOKMARK, PRODUCER_WITHOUT_NOTES, WORKER, VIEWER] {
        let LimitedUser { name, password, configure, write, read } = user;
        write!(users, r#",{{"name":"{name}","password":"{password}","tags":""}}"#).unwrap();
        for host in hosts.iter().filter(|host| host.starts_with("rights-")) {
            permit(name, host, [configure, write, read]);
        }
    }
    let hosts: Vec<_> = hosts.iter().map(|host| format!(r#"{{"name":"{host}"}}"#)).collect();
    format!(
        r#"{{"users":[{users}],"vhosts":[{}],"permissions":[{}]}}"#,
        hosts.join(","),
        permissions.join(",")
    )
}

/// Ports that no process listens on, below those that the kernel gives to outgoing connections.
/// Such a connection could take the port while the broker is stopped, or even connect to itself.
fn free_ports<const N: usize>() -> [u16; N] {
    let chance = RandomState::new().hash_one(std::process::id());
    let start = 10_000 + u16::try_from(chance % 20_000).unwrap();
    // All are held at the same time, so that they differ.
    let mut free =
        (start..32_000).filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
    let listeners: [TcpListener; N] = std::array::from_fn(|_| free.next().unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn wait_for_port(service: &Leash, port: u16, deadline: Instant) {
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(
            Instant::now() < deadline,
            "the broker did not start within {START_DEADLINE:?}:\n{}",
            service.output()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
