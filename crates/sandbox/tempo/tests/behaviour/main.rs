//! One suite of behaviours for two chains: this crate's, and anvil in Tempo mode when
//! `FAREBOX_ANVIL` names its binary. What passes on both is what the sandbox may claim.
#![allow(clippy::unwrap_used, reason = "tests may panic")]
#![allow(clippy::print_stdout, reason = "skips are named")]

mod keys;
mod payments;
#[path = "../peer/mod.rs"]
mod peer;
mod reads;
mod refusals;

use alloy::primitives::B256;
use keys::*;
use payments::*;
use peer::Peer;
use reads::*;
use refusals::*;

/// Runs each behaviour against a sandbox chain of its own, and all of them against one anvil.
macro_rules! behaviours {
    ($($name:ident),* $(,)?) => {
        mod sandbox {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    super::$name(&super::Peer::sandbox().await).await;
                }
            )*
        }

        // Without anvil it is reported as ignored, by name, and never passes unseen.
        #[tokio::test(flavor = "multi_thread")]
        #[ignore = "needs anvil: FAREBOX_ANVIL names the binary, ./tests/run installs it"]
        async fn anvil() {
            let path = std::env::var("FAREBOX_ANVIL").expect("FAREBOX_ANVIL names anvil's binary");
            let peer = Peer::anvil(&path).await;
            $(
                println!("anvil: {}", stringify!($name));
                $name(&peer).await;
            )*
        }
    };
}

behaviours![
    names_itself,
    answers_batches_and_unknown_methods,
    describes_its_tokens,
    memo_transfer_moves_money_and_logs_twice,
    receipt_transaction_and_block_agree,
    rust_clients_can_parse_the_replies,
    logs_are_found_by_memo,
    wrong_chain_is_refused,
    expired_window_is_refused,
    broke_payer_is_refused,
    garbage_is_refused,
    overdraft_is_included_as_failed,
    simulated_overdraft_reverts_with_the_real_error,
    batch_is_all_or_nothing,
    same_bytes_move_money_once,
    sponsor_pays_the_fee,
    forged_sponsor_is_refused,
    sponsored_envelope_cannot_be_replayed_with_another_fee,
    allowance_is_needed_and_used_up,
    nobody_and_tokens_cannot_be_paid,
    protocol_nonce_counts,
    nonce_keys_count_apart,
    plain_ethereum_transaction_pays_too,
    estimate_is_enough,
    preferred_fee_token_is_used,
    a_key_spends_within_its_limits,
    a_limit_comes_back_with_its_period,
    a_key_comes_along_with_its_first_payment,
    a_key_calls_what_it_may,
    keys_do_not_manage_keys,
    a_key_signs_in_no_other_form,
];

const MEMO: B256 = B256::repeat_byte(0xcd);
