//! The page that a browser gets instead of bare challenges.

use std::{fmt, sync::Arc, time::Duration};

use farebox_core::Invalid;

use super::limit::ChallengeLimit;

mod accept;
mod answer;
mod look;
mod render;
mod theme;

pub(super) use answer::{FAREBOX_PAGE, asks, challenge, mark, paid, prepare, prepares};
pub use look::Look;
pub use theme::{Colors, InvalidColor};

/// A payment page for browsers.
///
/// Where a request says that it would rather have HTML than JSON (`Accept`, with its q-values), and
/// an offer's rail has a [part](farebox_core::PagePart), the 402 is a page: still a 402, with the
/// same challenges in `WWW-Authenticate` and `Cache-Control: no-store`, but with something to see.
/// Programs that take anything keep the problem. The page pays a `GET`; for other methods it says
/// that it cannot. Without JavaScript it says so as well, and nothing is charged.
///
/// Its script presents the credential as any client does, with an `Idempotency-Key`, and again with
/// the same one while the outcome is unknown. A service worker at the resource's own address hands
/// the paid response to the page's next load, so that it arrives with its own headers and
/// policies, and keeps what is under way over a reload. Credentials are held in memory only.
///
/// The page may run its own scripts and styles by nonce, what a rail's part names (Stripe.js), and
/// nothing else: see its `Content-Security-Policy`. It cannot be framed.
///
/// # Templates
/// A [`Look`] can bring a template in Jinja's language. It sees `title`, `heading`, `logo` (a URL,
/// or none) and `nonce`, which are escaped, and must show `style` (in its head), `payment` (the ways
/// to pay) and `script` (at the end of its body).
#[derive(Clone)]
pub struct Page(Arc<Inner>);

struct Inner {
    look: look::Checked,
    limit: ChallengeLimit,
    /// The limit was given, and says itself who a client is.
    names_clients: bool,
}

impl Page {
    /// A page that looks so.
    ///
    /// # Errors
    /// Everything that is wrong with the look: `colors.accent`, `logo`, `template`.
    pub fn new(look: Look) -> Result<Self, Invalid> {
        Ok(Self(Arc::new(Inner {
            look: look.check()?,
            limit: default_limit(),
            names_clients: false,
        })))
    }

    /// How many payloads one client may have prepared (a token minted at Stripe, say) that it then
    /// does not pay with. 60, one of which is forgiven every second, unless set: of each client as
    /// [`limit_challenges`](super::PaymentLayer::limit_challenges) names it, else by its address, for
    /// which see [`ChallengeLimit::by_peer`]; where none is known, that many for all clients together.
    #[must_use]
    pub fn limit_preparations(self, limit: ChallengeLimit) -> Self {
        let inner = Arc::try_unwrap(self.0).unwrap_or_else(|shared| Inner {
            look: shared.look.clone(),
            limit: shared.limit.clone(),
            names_clients: true,
        });
        Self(Arc::new(Inner {
            limit,
            names_clients: true,
            ..inner
        }))
    }
}

fn default_limit() -> ChallengeLimit {
    let (unpaid, every) = (60, Duration::from_secs(1));
    #[cfg(feature = "axum")]
    return ChallengeLimit::by_peer(unpaid, every);
    #[cfg(not(feature = "axum"))]
    ChallengeLimit::new(unpaid, every, |_| None)
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page")
            .field("title", &self.0.look.title)
            .finish_non_exhaustive()
    }
}

/// Two pages are equal if they are one.
impl PartialEq for Page {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Page {}
