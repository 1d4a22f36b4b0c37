//! A request between its wire form and its types.

use farebox_wire::Encoded;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{intent::IntentSpec, refusal::Fault};

/// The request as the engine issued and authenticated it: the shared members and the rail's own.
#[derive(Clone, Debug)]
pub struct Ask<I: IntentSpec, D> {
    /// The shared members.
    pub request: I::Request,
    /// The rail's own (`methodDetails`).
    pub details: D,
}

const DETAILS: &str = "methodDetails";

/// Where a request has a rail's own members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// In an object of their own, `methodDetails`.
    #[default]
    MethodDetails,
    /// Beside the shared members, under names that those do not use (draft-lightning-session).
    Beside,
}

#[derive(Serialize)]
struct Written<'a, R, D> {
    #[serde(flatten)]
    request: &'a R,
    #[serde(rename = "methodDetails", skip_serializing_if = "Option::is_none")]
    details: Option<&'a D>,
}

#[derive(Serialize)]
struct Beside<'a, R, D> {
    #[serde(flatten)]
    request: &'a R,
    #[serde(flatten)]
    details: &'a D,
}

impl<I: IntentSpec, D: Serialize + DeserializeOwned> Ask<I, D> {
    /// The wire form. `methodDetails` is left out when it has no members.
    pub fn encode(&self) -> Result<Encoded, Fault> {
        self.encode_at(Place::MethodDetails)
    }

    /// The wire form with the rail's own members at `place`.
    pub fn encode_at(&self, place: Place) -> Result<Encoded, Fault> {
        let encoded = match place {
            Place::MethodDetails => return self.encode_apart(),
            Place::Beside => Encoded::encode(&Beside {
                request: &self.request,
                details: &self.details,
            }),
        };
        encoded.map_err(|e| Fault::new("encoding a request").caused_by(e))
    }

    fn encode_apart(&self) -> Result<Encoded, Fault> {
        let details = serde_json::to_string(&self.details)
            .map_err(|e| Fault::new("serialising details").caused_by(e))?;
        let empty = matches!(details.as_str(), "{}" | "null");
        let whole = Written {
            request: &self.request,
            details: (!empty).then_some(&self.details),
        };
        Encoded::encode(&whole).map_err(|e| Fault::new("encoding a request").caused_by(e))
    }

    /// Reads the wire form. Absent `methodDetails` are those without members.
    pub fn decode(request: &Encoded) -> Result<Self, serde_json::Error> {
        Self::decode_at(Place::MethodDetails, request)
    }

    /// Reads the wire form with the rail's own members at `place`.
    pub fn decode_at(place: Place, request: &Encoded) -> Result<Self, serde_json::Error> {
        let Value::Object(mut map) = request.value() else {
            return Err(serde::de::Error::custom("the request is no JSON object"));
        };
        if place == Place::Beside {
            let whole = Value::Object(map);
            return Ok(Self {
                request: I::Request::deserialize(&whole)?,
                details: D::deserialize(&whole)?,
            });
        }
        let details = match map.remove(DETAILS) {
            Some(details) => serde_json::from_value(details)?,
            // A type without members is written as an object or as null, and left out either way.
            None => serde_json::from_value(Value::Object(Map::new()))
                .or_else(|e| serde_json::from_value(Value::Null).map_err(|_| e))?,
        };
        Ok(Self {
            request: serde_json::from_value(Value::Object(map))?,
            details,
        })
    }
}
