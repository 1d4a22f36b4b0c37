//! `Authorization`: as it is, as the JSON inside the token, and as JSON of a JSON transport.
#![no_main]

use farebox_fuzz::{base64url, choose, same};
use farebox_wire::Credential;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = choose(data, 3) else {
        return;
    };
    let credential = match how {
        0 => Credential::parse(rest).ok().flatten(),
        1 => Credential::parse(format!("Payment {}", base64url(rest)).as_bytes())
            .ok()
            .flatten(),
        _ => serde_json::from_slice(rest).ok(),
    };
    let Some(credential) = credential else { return };
    let header = credential
        .to_header()
        .expect("what was read can be written");
    let again = Credential::parse(header.as_bytes());
    let again = again
        .expect("what was written can be read")
        .expect("one credential");
    same(&credential.challenge, &again.challenge);
    assert_eq!(credential.payload.get(), again.payload.get());
    assert_eq!(credential.source, again.source);
    assert_eq!(again.to_header().as_ref(), Ok(&header));
});
