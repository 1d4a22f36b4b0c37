//! Another server's event stream, cut anywhere, and the frames of a paid WebSocket.
#![no_main]

use farebox::http::{event_stream::Parser, server::ws::Frame};
use farebox_fuzz::choose;
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 512;

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = choose(data, 4) else {
        return;
    };
    match how {
        0 => frame(rest),
        _ => events(rest),
    }
});

/// Where the network cuts changes nothing, and no event is larger than the limit.
fn events(data: &[u8]) {
    let Some((cut, text)) = data.split_first() else {
        return;
    };
    let (head, tail) = text.split_at(usize::from(*cut).min(text.len()));
    let mut whole = Parser::new(LIMIT);
    let one = whole.push(text).is_ok();
    let mut parts = Parser::new(LIMIT);
    let two = parts.push(head).is_ok() && parts.push(tail).is_ok();
    assert_eq!(one, two, "whether it is too large");
    if one {
        whole.finish();
        parts.finish();
    }
    let (whole, parts): (Vec<_>, Vec<_>) = (whole.collect(), parts.collect());
    assert_eq!(whole, parts);
    for event in whole {
        // Each byte that is no UTF-8 may become three.
        assert!(event.data.len() <= 3 * LIMIT);
    }
}

/// A frame is the protocol's where its JSON says so, and the handler's as it came otherwise.
fn frame(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let json: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let kind = json.as_ref().and_then(|json| json.get("mpp"));
    match Frame::parse(text.to_owned()) {
        Ok(Frame::Other(same)) => {
            assert_eq!(same, text);
            assert!(kind.is_none());
        }
        Ok(Frame::Authorization(credential)) => {
            let json = json.expect("it was JSON");
            assert_eq!(json["authorization"], credential);
            assert_eq!(json["mpp"], "authorization");
        }
        Ok(Frame::CloseRequest) => assert_eq!(kind, Some(&"payment-close-request".into())),
        Err(_) => assert!(kind.is_some()),
    }
}
