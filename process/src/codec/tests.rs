use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::*;

mod limits;

fn bytes_of<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    encode(value, &mut out, &Limits::default()).unwrap();
    out
}

/// What the sender is told in a debug build, before anything is sent.
fn rehearse<T: Serialize + DeserializeOwned>(value: &T) -> Result<(), Problem> {
    let mut out = b"before".to_vec();
    let result = encode_for::<T, _>(value, &mut out, &Limits::default());
    if result.is_err() {
        assert_eq!(out, b"before", "an error leaves the buffer as it was");
    }
    result.map_err(|error| error.problem)
}

/// What a receiver says about bytes that were sent without a rehearsal.
fn receive<T: Serialize + DeserializeOwned>(value: &T) -> Result<T, Problem> {
    decode(&bytes_of(value), &Limits::default()).map_err(|error| error.problem)
}

fn lossy(container: &str, fields: &[&str], attribute: &str) -> Problem {
    Problem::Lossy {
        container: container.to_owned(),
        fields: fields.iter().map(|&field| field.to_owned()).collect(),
        attribute: attribute.to_owned(),
    }
}

fn travels<T>(value: T)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    assert_eq!(rehearse(&value), Ok(()));
    assert_eq!(receive(&value), Ok(value));
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Point<T> {
    x: T,
    #[serde(alias = "z", alias = "a")]
    y: T,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    #[serde(alias = "Disc")]
    Circle(f64),
    Line(Point<i32>, Point<i32>),
    #[serde(rename = "box")]
    Square {
        at: Point<u8>,
        side: Option<i128>,
    },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Empty {}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Wrapper(Vec<Shape>);

#[test]
fn what_serde_carries_travels_unharmed() {
    travels((true, -1i8, -2i16, -3i32, i64::MIN, i128::MAX, (), Unit, Empty {}));
    travels((1u8, u16::MAX, u32::MAX, u64::MAX, u128::MAX, 0.5f32, f64::MIN, 'ß'));
    let at = Point { x: 1, y: 2 };
    travels(Wrapper(vec![
        Shape::Nothing,
        Shape::Circle(1.5),
        Shape::Line(Point { x: -1, y: 1 }, Point { x: i32::MIN, y: 0 }),
        Shape::Square { at, side: Some(-1) },
    ]));
    travels(BTreeMap::from([((1, 'a'), Some(Some(()))), ((2, 'b'), Some(None))]));
    travels(HashMap::from([(String::from("k"), Ok::<_, String>(Box::new([1, 2])))]));
    travels((Duration::from_nanos(1), SystemTime::UNIX_EPOCH, OsString::from_vec(vec![0xff])));
    travels(std::net::IpAddr::from([127, 0, 0, 1]));
    travels(vec![(); 1000]);
}

#[test]
fn values_without_named_fields_are_in_postcards_format() {
    let value = (1u64 << 40, -5i32, "text", vec![Some(1.5f32), None], Ok::<u8, i8>(7), 'x');
    assert_eq!(bytes_of(&value), postcard::to_stdvec(&value).unwrap());
}

#[test]
fn a_field_that_is_skipped_while_it_is_written_is_named() {
    #[derive(Serialize, Deserialize)]
    struct Config {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
        port: u16,
    }
    let error = encode(&Config { user: None, port: 1 }, &mut Vec::new(), &Limits::default());
    let error = error.unwrap_err();
    assert_eq!(error.problem, lossy("Config", &["user"], "skip_serializing_if"));
    let text = error.to_string();
    assert!(
        text.ends_with(
            "::Config` cannot be encoded: `Config` loses `user` to `skip_serializing_if`; use the \
         attribute on neither side, or send another type"
        ),
        "{text}"
    );
    assert!(rehearse(&Config { user: Some("bob".into()), port: 1 }).is_ok());
}

#[test]
fn a_field_that_only_one_side_knows_is_an_error_on_both() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Unwritten {
        kept: u8,
        #[serde(default, skip_serializing)]
        cache: bool,
    }
    let sent = Unwritten { kept: 1, cache: true };
    assert_eq!(rehearse(&sent), Err(lossy("Unwritten", &["cache"], "skip_serializing")));
    assert_eq!(receive(&sent), Err(lossy("Unwritten", &[], "skip_serializing")));

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Unread {
        kept: u8,
        #[serde(skip_deserializing)]
        cache: bool,
    }
    let attribute = "skip_deserializing` or `tag";
    let sent = Unread { kept: 1, cache: true };
    assert_eq!(rehearse(&sent), Err(lossy("Unread", &["cache"], attribute)));
    assert_eq!(receive(&sent), Err(lossy("Unread", &[], attribute)));

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "type")]
    struct Tagged {
        kept: u8,
    }
    assert_eq!(rehearse(&Tagged { kept: 1 }), Err(lossy("Tagged", &["type"], attribute)));
    assert_eq!(receive(&Tagged { kept: 1 }), Err(lossy("Tagged", &[], attribute)));

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Event {
        Moved {
            by: u8,
            #[serde(default, skip_serializing)]
            why: String,
        },
    }
    let sent = vec![Some(Event::Moved { by: 1, why: String::new() })];
    assert_eq!(rehearse(&sent), Err(lossy("Event", &["why"], "skip_serializing")));
}

#[test]
fn a_field_that_neither_side_knows_is_the_types_own_affair() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Cached {
        kept: u8,
        #[serde(skip)]
        cache: u8,
    }
    assert_eq!(receive(&Cached { kept: 1, cache: 2 }), Ok(Cached { kept: 1, cache: 0 }));
}

#[test]
fn a_variant_that_would_be_read_as_another_is_named() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Colour {
        Red,
        #[serde(skip)]
        #[expect(dead_code, reason = "skipped variants still count")]
        Secret,
        Green,
        Blue,
    }
    assert_eq!(rehearse(&Colour::Red), Ok(()));
    assert_eq!(
        rehearse(&Colour::Green),
        Err(lossy("Colour", &["Green"], "skip` of a variant before it"))
    );
}

/// Reads whatever is there, as a JSON value does.
#[derive(Debug, Serialize)]
struct Anything;

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(serde::de::IgnoredAny).map(|_| Self)
    }
}

#[test]
fn types_that_ask_the_bytes_what_they_hold_are_unsupported() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        point: Point<u8>,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u8),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "t")]
    enum Internal {
        Point(Point<u8>),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "t", content = "c")]
    enum Adjacent {
        Number(u8),
        Nothing,
    }
    let point = Point { x: 1, y: 2 };
    let refused = [
        encode(&Flat { point: point.clone() }, &mut Vec::new(), &Limits::default())
            .map_err(|error| error.problem),
        rehearse(&Untagged::Number(1)),
        rehearse(&vec![Internal::Point(point)]),
        rehearse(&Adjacent::Number(1)),
        rehearse(&Adjacent::Nothing),
        rehearse(&Anything),
        receive(&Some(Anything)).map(drop),
    ];
    for problem in refused {
        let problem = problem.unwrap_err();
        assert!(matches!(problem, Problem::Unsupported { .. }), "{problem:?}");
        assert!(problem.hint().contains("JSON"));
    }
    let what = rehearse(&Internal::Point(Point { x: 1, y: 2 })).unwrap_err().to_string();
    assert!(what.contains("internally tagged enum Internal"), "{what}");
}

#[test]
fn a_path_that_is_not_utf8_gets_the_hint_to_send_an_os_string() {
    let path = PathBuf::from(OsString::from_vec(vec![b'/', 0xff]));
    let problem = rehearse(&path).unwrap_err();
    assert!(problem.hint().contains("OsString"), "{problem}");
    travels(OsString::from(path));
}

#[test]
fn a_type_that_panics_leaves_the_buffer_as_it_was() {
    struct Panics;
    impl Serialize for Panics {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            std::panic::resume_unwind(Box::new("no"))
        }
    }
    let mut out = vec![1];
    let encode = || encode(&("text", Panics), &mut out, &Limits::default());
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(encode)).is_err());
    assert_eq!(out, [1]);
}

#[test]
fn errors_travel_and_stay_on_one_line() {
    let error: DecodeError = decode::<bool>(&[2], &Limits::default()).unwrap_err();
    assert_eq!(receive(&error), Ok(error.clone()));
    let hostile = Problem::Refused("\x1b[2J\n".repeat(1000));
    let text = DecodeError { problem: hostile, ..error }.to_string();
    assert!(!text.contains(char::is_control) && text.len() < 10_000, "{text}");
}
