//! Paying with another stablecoin than the one that is asked for.

use std::sync::Arc;

use alloy::{
    primitives::{Address, Bytes, TxKind, U256, address},
    signers::Signer as _,
    sol_types::SolCall,
};
use farebox_core::{Payer, Paying, prelude::*};
use serde_json::{Value, json};
use tempo_contracts::precompiles::{IStablecoinDEX, ITIP20, STABLECOIN_DEX_ADDRESS};
use tempo_primitives::transaction::Call;

use crate::{
    ground::Ground,
    net::{
        Net, POOR, RECIPIENT, RICH, TOKEN, counted, detail, key, paying, reference, sign,
        transaction,
    },
    sponsored::FEE_PAYER,
    suite::give,
};

/// What is asked for; what the payer has is `TOKEN`.
const ASKED: Address = address!("0x20c0000000000000000000000000000000000001");

async fn balance(net: &Net, token: Address, owner: Address) -> U256 {
    let data: Bytes = ITIP20::balanceOfCall { account: owner }.abi_encode().into();
    let call = json!([{ "to": token, "data": data }, "latest"]);
    let word = net.rpc("eth_call", call).await;
    word.as_str().unwrap().parse().unwrap()
}

/// Somebody sells 1000 of what is asked for, one for one.
async fn open_market(net: &Net) {
    let approve = ITIP20::approveCall {
        spender: STABLECOIN_DEX_ADDRESS,
        amount: U256::MAX,
    };
    let pair = IStablecoinDEX::createPairCall { base: ASKED };
    let place = IStablecoinDEX::placeCall {
        token: ASKED,
        amount: 1_000_000_000,
        isBid: false,
        tick: 0,
    };
    let call = |to, input: Vec<u8>| Call {
        to: TxKind::Call(to),
        value: U256::ZERO,
        input: input.into(),
    };
    let mut tx = paying(&net.challenge("0").await, 0);
    tx.gas_limit = 8_000_000;
    tx.calls = vec![
        call(ASKED, approve.abi_encode()),
        call(STABLECOIN_DEX_ADDRESS, pair.abi_encode()),
        call(STABLECOIN_DEX_ADDRESS, place.abi_encode()),
    ];
    let raw = Bytes::from(sign(tx, RICH).await);
    let receipt = net.rpc("eth_sendRawTransactionSync", json!([raw])).await;
    assert_eq!(receipt["status"], "0x1", "{receipt}");
}

fn buyer(net: &Net, secret: &str) -> Arc<dyn Payer> {
    let config = json!({
        "rpc_url": net.url, "chain_id": 1337, "private_key": secret,
        "currency": TOKEN, "buy_with": { "token": TOKEN, "slippage": "0.02" },
    });
    farebox_tempo::CHARGE.wallet.unwrap()(&config).unwrap()
}

fn terms(more: &Value) -> Value {
    let mut terms = json!({ "amount": "0.5", "currency": ASKED });
    let more = more.as_object().unwrap().clone();
    terms.as_object_mut().unwrap().extend(more);
    terms
}

/// Protects: the price in the token asked for, out of another one, never above what was approved,
/// which is counted in the token that is given.
#[tokio::test]
async fn a_payment_is_bought_with_another_token() {
    let ground = Ground::start().await;
    let net = &Net::at(&ground.url());
    open_market(net).await;
    let payer = "6666666666666666666666666666666666666666666666666666666666666666";
    let account = key(payer).address();
    give(net, payer, 3_000_000).await;
    let before = balance(net, ASKED, RECIPIENT).await;
    let challenge = net
        .challenge_for(&terms(&json!({ "modes": ["push"] })))
        .await;
    let wallet = buyer(net, payer);
    let cost = wallet.price(&Paying::new(&challenge, None)).unwrap();
    assert_eq!(cost.amount, Amount::new(510_000));
    assert_eq!(cost.currency, format!("{TOKEN:#x}"));
    assert!(wallet.funded(&cost).await);
    let credential = net.pay_with(challenge, wallet).await.unwrap();
    drop(net.plan(&credential).await.unwrap());
    assert_eq!(
        balance(net, ASKED, RECIPIENT).await,
        before + U256::from(500_000)
    );
    assert_eq!(balance(net, ASKED, account).await, U256::ZERO);
    let left = net.balance(account).await;
    let fee = U256::from(2_500_000) - left;
    assert!(fee > U256::ZERO && fee < U256::from(100_000), "{fee}");
}

/// Protects: both sides of it in pull mode, sponsored or not, where the node simulates all calls;
/// and what buys something else than the payment.
#[tokio::test]
async fn a_server_takes_a_purchase_before_the_payment() {
    let ground = Ground::start().await;
    let mut net = Net::at(&ground.url());
    open_market(&net).await;
    let payer = "7777777777777777777777777777777777777777777777777777777777777777";
    give(&net, payer, 3_000_000).await;
    for sponsored in [false, true] {
        if sponsored {
            let mut config = crate::net::config(&net.url);
            config["fee_payer"] = json!({ "private_key": FEE_PAYER });
            net.rail = counted((farebox_tempo::CHARGE.build)(&config).unwrap());
        }
        let split = json!({ "amount": "0.1", "recipient": key(POOR).address() });
        for more in [json!({}), json!({ "splits": [split, split] })] {
            let challenge = net.challenge_for(&terms(&more)).await;
            let credential = net.pay_with(challenge, buyer(&net, payer)).await.unwrap();
            let order = net.verify(&credential).await.unwrap();
            reference(net.settle(&order).await);
        }
    }
    // An allowance for more, a purchase of something else.
    let challenge = net
        .challenge_for(&terms(&json!({ "fee_payer": false })))
        .await;
    let good = |amount: u64, most: u128| {
        let approve = ITIP20::approveCall {
            spender: STABLECOIN_DEX_ADDRESS,
            amount: U256::from(600_000),
        };
        let swap = IStablecoinDEX::swapExactAmountOutCall {
            tokenIn: TOKEN,
            tokenOut: ASKED,
            amountOut: amount.into(),
            maxAmountIn: most,
        };
        (approve.abi_encode(), swap.abi_encode())
    };
    for ((approve, swap), says) in [
        (good(500_000, 510_000), "not for what the swap may cost"),
        (good(400_000, 600_000), "exactly what is paid"),
    ] {
        let mut tx = paying(&challenge, 500_000);
        tx.calls[0].to = TxKind::Call(ASKED);
        for (to, input) in [(STABLECOIN_DEX_ADDRESS, swap), (TOKEN, approve)] {
            let (to, value) = (TxKind::Call(to), U256::ZERO);
            let input = input.into();
            tx.calls.insert(0, Call { to, value, input });
        }
        let credential = crate::net::Credential {
            challenge: challenge.clone(),
            payload: transaction(&sign(tx, payer).await),
            source: None,
        };
        let text = detail(net.verify(&credential).await.unwrap_err());
        assert!(text.contains(says), "{says}: {text}");
    }
    // A native value with either call, an allowance of what is no token.
    type Spoil = fn(&mut [Call]);
    let spoils: [(Spoil, &str); 3] = [
        (|calls| calls[0].value = U256::ONE, "native value"),
        (|calls| calls[1].value = U256::ONE, "native value"),
        (
            |calls| {
                calls[0].to = TxKind::Call(RECIPIENT);
                let mut input = calls[1].input.to_vec();
                input[16..36].copy_from_slice(RECIPIENT.as_slice());
                calls[1].input = input.into();
            },
            "no TIP-20 token",
        ),
    ];
    for (spoil, says) in spoils {
        let (approve, swap) = good(500_000, 600_000);
        let mut tx = paying(&challenge, 500_000);
        tx.calls[0].to = TxKind::Call(ASKED);
        for (to, input) in [(STABLECOIN_DEX_ADDRESS, swap), (TOKEN, approve)] {
            let (to, value) = (TxKind::Call(to), U256::ZERO);
            let input = input.into();
            tx.calls.insert(0, Call { to, value, input });
        }
        spoil(&mut tx.calls);
        let credential = crate::net::Credential {
            challenge: challenge.clone(),
            payload: transaction(&sign(tx, payer).await),
            source: None,
        };
        let text = detail(net.verify(&credential).await.unwrap_err());
        assert!(text.contains(says), "{says}: {text}");
    }
}

/// Protects: a market that does not sell, and an account without the fee, are said before anything
/// is signed.
#[tokio::test]
async fn what_cannot_be_bought_is_not_paid() {
    let ground = Ground::start().await;
    let net = &Net::at(&ground.url());
    let payer = "8888888888888888888888888888888888888888888888888888888888888888";
    give(net, payer, 510_000).await;
    let pay = async || {
        let challenge = net.challenge_for(&terms(&json!({}))).await;
        match net.pay_with(challenge, buyer(net, payer)).await {
            Err(PayError::NotPaid(fault)) => fault.to_string(),
            other => panic!("{:?}", other.map(|_| ())),
        }
    };
    let text = pay().await;
    assert!(text.contains("does not sell that much"), "{text}");
    open_market(net).await;
    let text = pay().await;
    assert!(text.contains("stablecoin fee token"), "{text}");
}
