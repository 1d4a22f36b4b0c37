//! Channels in a file.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use farebox_core::{Durability, Fault, Store};
use serde::{Deserialize, Serialize};

/// A channel store in one JSON file, which processes may share.
///
/// The file is replaced as a whole, and only by one process at a time, which a second file beside
/// it (`….lock`) sees to. What it holds can spend money, so only its owner may read it. It is meant
/// for the few channels that a client has open.
pub struct FileStore {
    path: PathBuf,
}

#[derive(Default, Serialize, Deserialize)]
struct Whole {
    entries: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    value: String,
    /// Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<u128>,
}

impl FileStore {
    /// The channels in the file at `path`, which need not exist; its folder must.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn beside(&self, extension: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(extension);
        name.into()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let this = Self {
            path: self.path.clone(),
        };
        let done = tokio::task::spawn_blocking(move || work(&this)).await;
        let failed = |e: io::Error| Fault::new("the channel file").caused_by(e);
        done.map_err(|e| Fault::new("the channel file's thread").caused_by(e))?
            .map_err(failed)
    }

    fn read(&self) -> io::Result<Whole> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Whole::default()),
            Err(e) => return Err(e),
        };
        // Never taken for empty: an unreadable file may hold the only trace of a deposit.
        let unreadable = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not readable");
        let mut whole: Whole = serde_json::from_slice(&text).map_err(unreadable)?;
        let now = now();
        let live = |entry: &Entry| entry.until.is_none_or(|until| now < until);
        whole.entries.retain(|_, entry| live(entry));
        Ok(whole)
    }

    fn write(&self, whole: &Whole) -> io::Result<()> {
        let text = serde_json::to_vec(whole).map_err(io::Error::other)?;
        let new = self.beside(".new");
        let mut file = private(
            fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true),
        )
        .open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&new, &self.path)?;
        // So that the rename is there after a power cut too.
        #[cfg(unix)]
        fs::File::open(folder(&self.path))?.sync_all()?;
        Ok(())
    }

    fn swap(
        &self,
        key: String,
        expected: Option<String>,
        next: Option<String>,
        keep: Option<Duration>,
    ) -> io::Result<bool> {
        let lock = private(
            fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false),
        )
        .open(self.beside(".lock"))?;
        lock.lock()?;
        let mut whole = self.read()?;
        if whole.entries.get(&key).map(|entry| &entry.value) != expected.as_ref() {
            return Ok(false);
        }
        match next {
            Some(value) => {
                let until = keep.map(|keep| now().saturating_add(keep.as_millis() + 1));
                whole.entries.insert(key, Entry { value, until });
            }
            None => drop(whole.entries.remove(&key)),
        }
        self.write(&whole)?;
        // Closing the file gives the lock back.
        Ok(true)
    }
}

fn now() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis())
}

#[cfg(unix)]
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// For the owner alone.
fn private(options: &mut fs::OpenOptions) -> &mut fs::OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore")
            .field("path", &self.path)
            .finish()
    }
}

#[async_trait]
impl Store for FileStore {
    fn durability(&self) -> Durability {
        Durability::Durable
    }

    fn notices(&self) -> Option<&dyn farebox_core::Notices> {
        None
    }

    async fn get(&self, key: &str) -> Result<Option<String>, Fault> {
        let key = key.to_owned();
        self.blocking(move |this| Ok(this.read()?.entries.remove(&key).map(|entry| entry.value)))
            .await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<&str>,
        next: Option<&str>,
        keep: Option<Duration>,
    ) -> Result<bool, Fault> {
        let (key, owned) = (key.to_owned(), |text: Option<&str>| text.map(str::to_owned));
        let (expected, next) = (owned(expected), owned(next));
        self.blocking(move |this| this.swap(key, expected, next, keep))
            .await
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<(String, String)>, Fault> {
        let prefix = prefix.to_owned();
        self.blocking(move |this| {
            let entries = this.read()?.entries.into_iter();
            let within = entries.filter(|(key, _)| key.starts_with(&prefix));
            Ok(within.map(|(key, entry)| (key, entry.value)).collect())
        })
        .await
    }
}
