//! From bytes to a value, with little faith in the bytes.

use serde::de::{DeserializeOwned, Deserializer, Expected, Visitor};

use super::Limits;
use super::access::{Elements, Fields, Variant};
use super::bytes::{Reader, invalid, unzigzag_wide};
use super::encode::count;
use super::error::{Fault, Problem};
use super::notes::Notes;

/// What any bytes may claim, in bytes of memory, however few they are: a value up to this size is
/// never taken for an attack.
const MODEST: usize = 64 << 20;

#[inline]
pub(super) fn decode<T: DeserializeOwned, N: Notes>(
    bytes: &[u8],
    limits: &Limits,
    notes: &mut N,
) -> Result<T, Fault> {
    if bytes.len() > limits.max_bytes {
        return Err(Fault::new(Problem::TooLarge { limit: limits.max_bytes }));
    }
    let mut decoder = Decoder {
        reader: Reader::new(bytes),
        levels: limits.max_depth,
        budget: budget(bytes.len(), limits),
        limits,
        total: bytes.len(),
        notes,
    };
    let value = T::deserialize(&mut decoder)?;
    match decoder.reader.left() {
        0 => Ok(value),
        bytes => Err(Fault::new(Problem::Trailing { bytes })),
    }
}

fn budget(bytes: usize, limits: &Limits) -> usize {
    bytes.saturating_mul(limits.max_amplification).max(MODEST)
}

pub(super) struct Decoder<'de, 'a, N> {
    pub(super) reader: Reader<'de>,
    /// How many levels may still be opened.
    levels: u32,
    /// How much memory may still be claimed.
    budget: usize,
    limits: &'a Limits,
    total: usize,
    pub(super) notes: &'a mut N,
}

impl<'de, N: Notes> Decoder<'de, '_, N> {
    #[inline]
    fn slice(&mut self) -> Result<&'de [u8], Fault> {
        let len = self.reader.len()?;
        self.reader.bytes(len)
    }

    #[inline]
    fn text(&mut self) -> Result<&'de str, Fault> {
        str::from_utf8(self.slice()?).map_err(|_| invalid("a string that is not UTF-8"))
    }

    fn character(&mut self) -> Result<char, Fault> {
        let mut chars = self.text()?.chars();
        match (chars.next(), chars.next()) {
            (Some(character), None) => Ok(character),
            _ => Err(invalid("a character that is not one")),
        }
    }

    #[inline]
    fn flag(&mut self) -> Result<bool, Fault> {
        match self.reader.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(invalid("a yes or no that is neither")),
        }
    }

    /// Reads what is one level down.
    #[inline]
    pub(super) fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let here = self.levels;
        let Some(below) = here.checked_sub(1) else {
            return Err(Fault::new(Problem::TooDeep { limit: self.limits.max_depth }));
        };
        self.levels = below;
        let value = read(self);
        self.levels = here;
        value
    }

    /// Claims memory for a `T`, unless it is so small that the byte it is read from pays for it.
    #[inline]
    fn claim_value<T>(&mut self) -> Result<(), Fault> {
        const SMALL: usize = 64;
        if size_of::<T>() <= SMALL { Ok(()) } else { self.claim(size_of::<T>()) }
    }

    #[inline]
    fn claim(&mut self, bytes: usize) -> Result<(), Fault> {
        match self.budget.checked_sub(bytes) {
            Some(budget) => {
                self.budget = budget;
                Ok(())
            }
            None => Err(self.amplified()),
        }
    }

    #[cold]
    fn amplified(&self) -> Fault {
        Fault::new(Problem::Amplified { limit: budget(self.total, self.limits) })
    }

    /// Reads a count of elements. Each claims a byte even if it has none: counting takes time.
    #[inline]
    fn elements(&mut self) -> Result<usize, Fault> {
        let len = self.reader.len()?;
        self.claim(len)?;
        Ok(len)
    }

    #[inline]
    pub(super) fn tuple<V: Visitor<'de>>(
        &mut self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.claim_value::<V::Value>()?;
        self.nested(|decoder| visitor.visit_seq(Elements { left: len, decoder }))
    }

    #[inline]
    pub(super) fn fields<V: Visitor<'de>>(
        &mut self,
        name: &'static str,
        note: usize,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.claim_value::<V::Value>()?;
        let written = self.reader.byte()?;
        self.nested(|decoder| {
            let mut access = Fields { decoder, written, read: 0, name, note, names };
            let value = visitor.visit_seq(&mut access);
            // Not a `match` on the value, which would move it.
            if count(access.read) < written && value.is_ok() {
                return Err(access.lossy("skip_deserializing` or `tag"));
            }
            value
        })
    }
}

#[cold]
fn unsupported(what: &str, expected: &dyn Expected) -> Fault {
    Fault::new(Problem::Unsupported { what: format!("{what} ({expected})") })
}

/// Values that are read in one step.
macro_rules! values {
    ($($method:ident => $visit:ident(|$decoder:ident| $read:expr);)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let $decoder = &mut *self;
            visitor.$visit($read)
        }
    )*};
}

impl<'de, N: Notes> Deserializer<'de> for &mut Decoder<'de, '_, N> {
    type Error = Fault;

    values! {
        deserialize_bool => visit_bool(|d| d.flag()?);
        deserialize_i8 => visit_i8(|d| d.reader.byte()? as i8);
        deserialize_i16 => visit_i16(|d| d.reader.signed()?);
        deserialize_i32 => visit_i32(|d| d.reader.signed()?);
        deserialize_i64 => visit_i64(|d| d.reader.signed()?);
        deserialize_i128 => visit_i128(|d| unzigzag_wide(d.reader.wide()?));
        deserialize_u8 => visit_u8(|d| d.reader.byte()?);
        deserialize_u16 => visit_u16(|d| d.reader.small()?);
        deserialize_u32 => visit_u32(|d| d.reader.small()?);
        deserialize_u64 => visit_u64(|d| d.reader.number()?);
        deserialize_u128 => visit_u128(|d| d.reader.wide()?);
        deserialize_f32 => visit_f32(|d| f32::from_le_bytes(d.reader.array()?));
        deserialize_f64 => visit_f64(|d| f64::from_le_bytes(d.reader.array()?));
        deserialize_char => visit_char(|d| d.character()?);
        deserialize_str => visit_borrowed_str(|d| d.text()?);
        deserialize_string => visit_borrowed_str(|d| d.text()?);
        deserialize_bytes => visit_borrowed_bytes(|d| d.slice()?);
        deserialize_byte_buf => visit_borrowed_bytes(|d| d.slice()?);
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        const WHAT: &str = "`serde(untagged)`, `serde(tag)`, or a type that holds anything";
        Err(unsupported(WHAT, &visitor))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        Err(unsupported("`serde(tag, content)`, or another name in place of a value", &visitor))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        Err(unsupported("to skip a value of an unknown type", &visitor))
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.claim_value::<V::Value>()?;
        if !self.flag()? {
            return visitor.visit_none();
        }
        self.nested(|decoder| visitor.visit_some(decoder))
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.nested(|decoder| visitor.visit_newtype_struct(decoder))
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let len = self.elements()?;
        self.tuple(len, visitor)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        self.tuple(len, visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.tuple(len, visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let len = self.elements()?;
        self.claim_value::<V::Value>()?;
        self.nested(|decoder| visitor.visit_map(Elements { left: len, decoder }))
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let note = self.notes.next(name);
        self.fields(name, note, fields, visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.claim_value::<V::Value>()?;
        let note = self.notes.next(name);
        if let Some(variant) = self.notes.shifted(note, variants) {
            return Err(Fault::new(Problem::Lossy {
                container: name.to_owned(),
                fields: vec![variant.to_owned()],
                attribute: "skip` of a variant before it".to_owned(),
            }));
        }
        visitor.visit_enum(Variant { decoder: self, name, note })
    }
}
