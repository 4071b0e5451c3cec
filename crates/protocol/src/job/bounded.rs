//! Lists and maps that are read no further than they may be long: what is longer is refused before it takes memory many times
//! its size on the wire.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A list of at most `MOST` values.
pub(super) fn list<'de, D, T, const MOST: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(List::<T, MOST>(PhantomData))
}

/// A map of at most `MOST` names.
pub(super) fn map<'de, D, const MOST: usize>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_map(Map::<MOST>)
}

struct List<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MOST}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = access.next_element()? {
            if list.len() == MOST {
                return Err(A::Error::custom(format_args!("a list has over {MOST} entries")));
            }
            list.push(value);
        }
        Ok(list)
    }
}

struct Map<const MOST: usize>;

impl<'de, const MOST: usize> Visitor<'de> for Map<MOST> {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map of at most {MOST} texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((name, value)) = access.next_entry()? {
            map.insert(name, value);
            if map.len() > MOST {
                return Err(A::Error::custom(format_args!("a map has over {MOST} entries")));
            }
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{JobRequest, limits};

    #[test]
    fn what_is_too_long_is_not_read() {
        let job = |args: usize, env: usize, files: usize| {
            let args = vec![""; args];
            let env: serde_json::Map<_, _> = (0..env).map(|name| (name.to_string(), json!(""))).collect();
            let files = vec![json!({ "path": "x", "collect": true }); files];
            let job = json!({ "lang": "bash", "code": "true", "args": args, "env": env, "files": files });
            serde_json::from_value::<JobRequest>(job).map_err(|error| error.to_string())
        };
        let most = job(limits::MAX_ARGS, limits::MAX_ENV, limits::MAX_FILES).unwrap();
        assert_eq!(
            (most.args.len(), most.env.len()),
            (limits::MAX_ARGS, limits::MAX_ENV)
        );
        assert!(job(limits::MAX_ARGS + 1, 0, 0).unwrap_err().contains("over 1024"));
        assert!(job(0, limits::MAX_ENV + 1, 0).unwrap_err().contains("over 1024"));
        assert!(job(0, 0, limits::MAX_FILES + 1).unwrap_err().contains("over 256"));
    }
}
