//! Running the command, and a market to run it in. Whoever waits in vain is told what the command
//! said.

use std::{
    fmt,
    io::{Read, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;

/// How long anything may take here. It takes seconds, and tens of them on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A wallet for `[rails.proof]`, where nothing has to be paid.
pub(crate) const KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";

/// The rail that [`KEY`] pays on, at the end of a configuration's head.
pub(crate) const PROOF: &str = r#"
[rails.proof]
chain_id = 1337
currency = "0x20c0000000000000000000000000000000000000"
recipient = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
"#;

pub(crate) const RAILS: [&str; 4] = [
    "lightning/charge",
    "proof/charge",
    "stripe/charge",
    "tempo/charge",
];

pub(crate) fn farebox(args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("farebox"));
    command.args(args).stdin(Stdio::null());
    command
}

pub(crate) fn run(args: &[&str]) -> Output {
    output(&mut farebox(args))
}

/// What a command says until it ends.
pub(crate) fn output(command: &mut Command) -> Output {
    Running::of(command).output()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A stream of a command's, read as it is written, so that the command never waits for us.
struct Said {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Said {
    fn read(mut from: impl Read + Send + 'static) -> Self {
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let shared = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut some) {
                shared.lock().unwrap().extend_from_slice(&some[..n]);
            }
        });
        Self {
            bytes,
            reader: Some(reader),
        }
    }

    /// What there is by now.
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    /// All of it, once its writer has ended.
    fn all(&mut self) -> Vec<u8> {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.bytes.lock().unwrap().clone()
    }
}

/// A command that runs, and ends with its handle.
pub(crate) struct Running {
    pub(crate) child: Child,
    called: String,
    out: Said,
    err: Said,
}

impl Drop for Running {
    #[expect(clippy::print_stderr, reason = "a test that fails shows who said what")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{self}");
        }
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { called, .. } = self;
        write!(f, "{called} said:\n{}{}", self.out.text(), self.err.text())
    }
}

impl Running {
    pub(crate) fn of(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let called: Vec<_> = command
            .get_args()
            .map(|arg| arg.to_string_lossy())
            .collect();
        let called = called.join(" ");
        let mut child = command.spawn().unwrap();
        let out = Said::read(child.stdout.take().unwrap());
        let err = Said::read(child.stderr.take().unwrap());
        Self {
            child,
            called,
            out,
            err,
        }
    }

    /// Starts `farebox` and waits for the first line that `wanted` accepts.
    pub(crate) fn start<T>(args: &[&str], wanted: impl Fn(&str) -> Option<T>) -> (Self, T) {
        Self::begin(&mut farebox(args), wanted)
    }

    /// The same with a command that was made before.
    pub(crate) fn begin<T>(command: &mut Command, wanted: impl Fn(&str) -> Option<T>) -> (Self, T) {
        let mut running = Self::of(command);
        let found = running.until("its first word", |running| {
            running.lines().iter().find_map(|line| wanted(line))
        });
        (running, found)
    }

    /// The whole lines that it has written to its output by now.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = self.out.text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect()
    }

    /// Looks until there is what is wanted, or the command has ended, or too much time has passed. The
    /// only way to wait here: in vain is a panic, and what the command said is shown.
    pub(crate) fn until<T>(
        &mut self,
        wanted: &str,
        mut look: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Asked first: what it wrote before it ended is there to be looked at.
            let status = self.child.try_wait().unwrap();
            if status.is_some() {
                self.out.all();
                self.err.all();
            }
            if let Some(found) = look(self) {
                return found;
            }
            if let Some(status) = status {
                panic!("waited for {wanted}, and it ended with {status}");
            }
            assert!(Instant::now() < deadline, "waited for {wanted} in vain");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it said until it ended, and how that was.
    pub(crate) fn output(mut self) -> Output {
        let status = self.until("its end", |running| running.child.try_wait().unwrap());
        Output {
            status,
            stdout: self.out.all(),
            stderr: self.err.all(),
        }
    }
}

/// A request, by its line and headers, and the whole answer.
pub(crate) fn send(base: &str, request: &str) -> String {
    let mut stream = connect(base);
    let request = format!("{request}\nconnection: close\n\n").replace('\n', "\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A connection whose reads have a deadline.
pub(crate) fn connect(base: &str) -> TcpStream {
    let stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Where a server says that it listens.
pub(crate) fn listening(line: &str) -> Option<String> {
    let rest = line.strip_prefix("listening on ")?;
    Some(rest.split(',').next()?.to_owned())
}

/// A configuration in a folder, and `serve` with it.
pub(crate) fn serve(folder: &Path, config: &str) -> (Running, String) {
    let path = folder.join("farebox.toml");
    std::fs::write(&path, config).unwrap();
    Running::start(&["serve", "--config", path.to_str().unwrap()], listening)
}

/// A seller on the sandboxes, and a payer's wallets.
pub(crate) struct Market {
    _sandbox: Running,
    pub(crate) serve: Running,
    pub(crate) wallet: String,
    pub(crate) url: String,
    pub(crate) base: String,
    pub(crate) dir: tempfile::TempDir,
}

impl Market {
    pub(crate) fn open() -> Self {
        Self::of(|_| {})
    }

    /// One whose seller has its configuration changed.
    pub(crate) fn of(change: impl FnOnce(&mut Value)) -> Self {
        let (sandbox, printed) = Running::start(&["sandbox", "--json"], |line| {
            serde_json::from_str::<Value>(line).ok()
        });
        let dir = tempfile::tempdir().unwrap();
        let mut config = printed["config"].clone();
        // Any free port.
        config["listen"] = "127.0.0.1:0".into();
        // Every rail is offered, and every payment recorded, on a slow machine too.
        config["timing"] = serde_json::json!({ "quote": "30s", "settle": "30s", "store": "30s" });
        change(&mut config);
        let wallet = dir.path().join("wallet.toml");
        std::fs::write(&wallet, toml::to_string(&printed["wallet"]).unwrap()).unwrap();
        let (serve, base) = serve(dir.path(), &toml::to_string(&config).unwrap());
        let wallet = wallet.to_str().unwrap().to_owned();
        Self {
            _sandbox: sandbox,
            serve,
            wallet,
            url: format!("{base}/joke"),
            base,
            dir,
        }
    }

    pub(crate) fn pay(&self, more: &[&str]) -> Output {
        let mut args = vec!["pay", "--wallet", &self.wallet, &self.url];
        args.extend(more);
        run(&args)
    }
}
