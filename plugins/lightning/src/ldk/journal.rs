//! Notes on payments that LDK may know of and has no record of: between its promise to pay and the
//! record of it, a crash would make a payment look as if it had never been sent.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::bolt11::{PaymentHash, Preimage};
use crate::node::{NodeError, Payment};

/// One file for each payment, named by its hash: empty while nothing is known.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    folder: PathBuf,
}

impl Journal {
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let folder = data_dir.join("farebox-sent");
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    fn path(&self, hash: PaymentHash) -> PathBuf {
        self.folder.join(hash.to_string())
    }

    fn write(&self, hash: PaymentHash, text: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(self.path(hash))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        File::open(&self.folder)?.sync_all()
    }

    /// Notes that a payment is about to be sent.
    pub(super) fn begin(&self, hash: PaymentHash) -> io::Result<()> {
        self.write(hash, "")
    }

    /// Notes how a payment ended of which LDK has no record. One without a note is not ours.
    pub(super) fn end(
        &self,
        hash: PaymentHash,
        ended: Result<(&Preimage, u64), ()>,
    ) -> io::Result<()> {
        if !self.path(hash).exists() {
            return Ok(());
        }
        match ended {
            Err(()) => self.write(hash, "failed"),
            Ok((preimage, fee_msat)) => {
                let text = Zeroizing::new(format!("{} {fee_msat}", &*preimage.to_hex()));
                self.write(hash, &text)
            }
        }
    }

    /// LDK has its own record by now, or nothing was sent. A note left behind only repeats it.
    pub(super) fn forget(&self, hash: PaymentHash) {
        let _ = fs::remove_file(self.path(hash));
    }

    /// What became of a payment of which LDK has no record; `None` when there is no note either.
    pub(super) fn read(&self, hash: PaymentHash) -> Option<Payment> {
        let text = match fs::read_to_string(self.path(hash)) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(_) => return Some(Payment::Unknown(NodeError::Nonsense("an unreadable note"))),
        };
        if *text == "failed" {
            return Some(Payment::Failed("the payment failed".into()));
        }
        let ended = text.split_once(' ').and_then(|(preimage, fee)| {
            let preimage = Preimage::parse(preimage).filter(|p| p.hash() == hash)?;
            Some((preimage, fee.parse().ok()?))
        });
        Some(match ended {
            Some((preimage, fee_msat)) => Payment::Succeeded { preimage, fee_msat },
            None => Payment::Unknown(NodeError::InFlight),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    /// A crash between the note and LDK's record must not look like "never sent".
    #[test]
    fn a_note_outlives_its_writer() {
        let folder = tempfile::tempdir().unwrap();
        let preimage = Preimage::new([7; 32]);
        let hash = preimage.hash();
        let journal = Journal::open(folder.path()).unwrap();
        assert!(journal.read(hash).is_none());
        journal.begin(hash).unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        assert!(matches!(
            journal.read(hash),
            Some(Payment::Unknown(NodeError::InFlight))
        ));
        journal.end(hash, Ok((&preimage, 5))).unwrap();
        assert!(matches!(
            journal.read(hash),
            Some(Payment::Succeeded { fee_msat: 5, .. })
        ));
        journal.forget(hash);
        assert!(journal.read(hash).is_none());
        // Without a note there is nothing to end.
        journal.end(hash, Err(())).unwrap();
        assert!(journal.read(hash).is_none());
    }
}
