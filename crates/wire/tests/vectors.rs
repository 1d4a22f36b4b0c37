//! The project's golden vectors, `spec/vectors`, whose values were computed
//! with other tools than this crate.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use farebox_wire::{
    BodyDigest, Challenge, Credential, CredentialError, Problem, ProblemDetails, Receipt,
    SecretRing, challenge_id,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn vectors<T: DeserializeOwned>(name: &str) -> T {
    // Tests run in their package's folder.
    let text = std::fs::read_to_string(format!("../../spec/vectors/{name}")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[derive(Deserialize)]
struct Named {
    name: String,
    header: String,
}

#[test]
fn challenge_ids() {
    #[derive(Deserialize)]
    struct Case {
        name: String,
        secret: String,
        challenge: Value,
        id: String,
    }
    #[derive(Deserialize)]
    struct File {
        cases: Vec<Case>,
    }
    for mut case in vectors::<File>("challenge-id.json").cases {
        case.challenge["id"] = case.id.clone().into();
        let mut challenge: Challenge = serde_json::from_value(case.challenge).unwrap();
        let id = challenge_id(case.secret.as_bytes(), &challenge);
        assert_eq!(id, case.id, "{}", case.name);

        let ring = SecretRing::new([case.secret.into()]).unwrap();
        assert!(ring.verify(&challenge), "{}", case.name);
        challenge.id.clear();
        assert!(!ring.verify(&challenge), "{}", case.name);
        ring.sign(&mut challenge);
        assert_eq!(challenge.id, case.id, "{}", case.name);
    }
}

#[derive(Deserialize)]
struct Headers {
    valid: Vec<ValidHeader>,
    invalid: Vec<Named>,
    many: Vec<Many>,
}

#[derive(Deserialize)]
struct ValidHeader {
    name: String,
    header: String,
    challenge: Value,
    written: String,
}

#[derive(Deserialize)]
struct Many {
    name: String,
    headers: Vec<String>,
    ids: Vec<Option<String>>,
}

#[test]
fn challenge_headers() {
    let file: Headers = vectors("challenge-header.json");
    for case in file.valid {
        let challenge = Challenge::parse_one(&case.header).expect(&case.name);
        assert_eq!(json!(challenge), case.challenge, "{}", case.name);
        assert_eq!(
            challenge.to_header().unwrap(),
            case.written,
            "{}",
            case.name
        );
        assert_eq!(
            Challenge::parse_one(&case.written).as_ref(),
            Ok(&challenge),
            "{}",
            case.name
        );
        let all = Challenge::parse_all([case.header.as_bytes()]);
        assert_eq!(all, [Ok(challenge)], "{}", case.name);
    }
    for case in file.invalid {
        assert!(Challenge::parse_one(&case.header).is_err(), "{}", case.name);
    }
    for case in file.many {
        let parsed = Challenge::parse_all(case.headers.iter().map(String::as_bytes));
        let ids: Vec<_> = parsed.into_iter().map(|c| c.ok().map(|c| c.id)).collect();
        assert_eq!(ids, case.ids, "{}", case.name);
    }
}

#[test]
fn credentials() {
    #[derive(Deserialize)]
    struct Valid {
        name: String,
        header: String,
        credential: Value,
        written: String,
    }
    #[derive(Deserialize)]
    struct File {
        valid: Vec<Valid>,
        none: Vec<String>,
        multiple: Vec<String>,
        malformed: Vec<Named>,
    }
    let file: File = vectors("credential.json");
    for case in file.valid {
        let credential = Credential::parse(case.header.as_bytes())
            .expect(&case.name)
            .expect(&case.name);
        assert_eq!(json!(credential), case.credential, "{}", case.name);
        let written = credential.to_header().unwrap();
        let again = Credential::parse(written.as_bytes()).unwrap().unwrap();
        assert_eq!(json!(again), case.credential, "{}", case.name);
        // A payload received in another spelling is passed on as it came.
        let payload = farebox_wire::Payload::from_value(&case.credential["payload"]).unwrap();
        let own = Credential {
            payload,
            ..credential
        };
        assert_eq!(own.to_header().unwrap(), case.written, "{}", case.name);
        // The same value through a JSON transport.
        let json = Credential::from_value(&case.credential).unwrap();
        assert_eq!(json!(json), case.credential, "{}", case.name);
    }
    for header in file.none {
        assert!(
            Credential::parse(header.as_bytes()).unwrap().is_none(),
            "{header}"
        );
    }
    for header in file.multiple {
        let error = Credential::parse(header.as_bytes()).unwrap_err();
        assert_eq!(error, CredentialError::Multiple, "{header}");
    }
    for case in file.malformed {
        match Credential::parse(case.header.as_bytes()) {
            Err(CredentialError::Malformed(detail)) => assert!(!detail.is_empty()),
            other => panic!("{}: {other:?}", case.name),
        }
    }
}

#[test]
fn receipts() {
    #[derive(Deserialize)]
    struct Valid {
        name: String,
        header: String,
        receipt: Value,
        written: String,
    }
    #[derive(Deserialize)]
    struct File {
        valid: Vec<Valid>,
        invalid: Vec<Named>,
    }
    let file: File = vectors("receipt.json");
    for case in file.valid {
        let receipt = Receipt::parse(&case.header).expect(&case.name);
        assert_eq!(json!(receipt), case.receipt, "{}", case.name);
        assert_eq!(receipt.to_header().unwrap(), case.written, "{}", case.name);
        let json: Receipt = serde_json::from_value(case.receipt).unwrap();
        assert_eq!(json, receipt, "{}", case.name);
    }
    for case in file.invalid {
        assert!(Receipt::parse(&case.header).is_err(), "{}", case.name);
    }
}

#[test]
fn body_digests() {
    #[derive(Deserialize)]
    struct Case {
        body: String,
        digest: String,
        without_colons: String,
    }
    #[derive(Deserialize)]
    struct File {
        cases: Vec<Case>,
    }
    for case in vectors::<File>("body-digest.json").cases {
        let digest = BodyDigest::of(case.body.as_bytes());
        assert_eq!(digest.as_str(), case.digest);
        let bare = BodyDigest::parse(&case.without_colons).unwrap();
        assert_eq!(bare, digest);
        assert!(bare.matches(case.body.as_bytes()));
    }
}

#[test]
fn problems() {
    #[derive(Deserialize)]
    struct Case {
        problem: Value,
        r#type: String,
        title: String,
        status: u16,
    }
    #[derive(Deserialize)]
    struct File {
        cases: Vec<Case>,
    }
    for case in vectors::<File>("problem.json").cases {
        let problem: Problem = serde_json::from_value(case.problem.clone()).unwrap();
        assert_eq!(json!(problem), case.problem, "survives a store");
        let body = json!(ProblemDetails::new(&problem, "why"));
        let expected = json!({"type": case.r#type, "title": case.title, "status": case.status, "detail": "why"});
        assert_eq!(body, expected);
    }
}
