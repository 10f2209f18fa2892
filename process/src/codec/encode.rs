//! From a value to bytes: what serde says about a value, written down.

use std::fmt::{Display, Write};

use serde::ser::{self, Serialize, Serializer};

use super::Limits;
use super::bytes::{Rollback, Writer, zigzag, zigzag_wide};
use super::error::{Fault, Problem};
use super::notes::Notes;

#[inline]
pub(super) fn encode<T: Serialize + ?Sized, N: Notes>(
    value: &T,
    out: &mut Vec<u8>,
    limits: &Limits,
    notes: &mut N,
) -> Result<(), Fault> {
    let start = out.len();
    let mut rollback = Rollback { out, start };
    value.serialize(&mut Encoder {
        writer: Writer::new(rollback.out, limits.max_bytes),
        levels: limits.max_depth,
        limits,
        notes,
    })?;
    rollback.start = rollback.out.len();
    Ok(())
}

struct Encoder<'a, N> {
    writer: Writer<'a>,
    /// How many levels may still be opened.
    levels: u32,
    limits: &'a Limits,
    notes: &'a mut N,
}

impl<N: Notes> Encoder<'_, N> {
    #[inline]
    fn enter(&mut self) -> Result<(), Fault> {
        match self.levels.checked_sub(1) {
            Some(levels) => {
                self.levels = levels;
                Ok(())
            }
            None => Err(Fault::new(Problem::TooDeep { limit: self.limits.max_depth })),
        }
    }

    #[inline]
    fn leave(&mut self) {
        self.levels += 1;
    }

    #[inline]
    fn nested<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        self.enter()?;
        value.serialize(&mut *self)?;
        self.leave();
        Ok(())
    }

    /// Starts so many elements, and saves the buffer from growing for each of them.
    #[inline]
    fn elements(&mut self, len: Option<usize>, unknown: &str) -> Result<(), Fault> {
        const MOST: usize = 1 << 20; // Elements without a size could be any number.
        let Some(len) = len else {
            return Err(Fault::new(Problem::Unsupported { what: unknown.to_owned() }));
        };
        self.enter()?;
        self.writer.number(len as u64)?;
        self.writer.reserve(len.min(MOST));
        Ok(())
    }

    #[inline]
    fn fields(
        &mut self,
        name: &'static str,
        note: usize,
        len: usize,
    ) -> Result<Fields<'_, Self>, Fault> {
        self.enter()?;
        let count_at = self.writer.len();
        let promised = count(len);
        self.writer.byte(promised)?;
        Ok(Fields { encoder: self, name, note, count_at, promised, written: 0 })
    }
}

/// How many fields a struct says it has. From 255 on they are not told apart.
pub(super) fn count(fields: usize) -> u8 {
    u8::try_from(fields).unwrap_or(u8::MAX)
}

/// A struct, or a variant with named fields, which is being written.
struct Fields<'e, E> {
    encoder: &'e mut E,
    name: &'static str,
    note: usize,
    count_at: usize,
    promised: u8,
    written: usize,
}

impl<N: Notes> Fields<'_, Encoder<'_, N>> {
    #[inline]
    fn field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Fault> {
        self.written += 1;
        self.encoder.notes.field(self.note, key);
        value.serialize(&mut *self.encoder)
    }

    /// The derive macro says so where `skip_serializing_if` holds. A reader could not know.
    #[cold]
    fn skip(&self, key: &'static str) -> Fault {
        Fault::new(Problem::Lossy {
            container: self.name.to_owned(),
            fields: vec![key.to_owned()],
            attribute: "skip_serializing_if".to_owned(),
        })
    }

    #[inline]
    fn end(self) -> Result<(), Fault> {
        self.encoder.leave();
        let written = count(self.written);
        // Only a `Serialize` written by hand announces another number than it writes.
        if written != self.promised {
            self.encoder.writer.amend(self.count_at, written);
        }
        Ok(())
    }
}

/// Values that are written in one step.
macro_rules! values {
    ($($method:ident($type:ty) => |$writer:ident, $value:ident| $write:expr;)*) => {$(
        #[inline]
        fn $method(self, $value: $type) -> Result<(), Fault> {
            let $writer = &mut self.writer;
            $write
        }
    )*};
}

impl<'e, 'a, N: Notes> Serializer for &'e mut Encoder<'a, N> {
    type Ok = ();
    type Error = Fault;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Fields<'e, Encoder<'a, N>>;
    type SerializeStructVariant = Fields<'e, Encoder<'a, N>>;

    values! {
        serialize_bool(bool) => |w, v| w.byte(v.into());
        serialize_i8(i8) => |w, v| w.byte(v as u8);
        serialize_i16(i16) => |w, v| w.number(zigzag(v.into()));
        serialize_i32(i32) => |w, v| w.number(zigzag(v.into()));
        serialize_i64(i64) => |w, v| w.number(zigzag(v));
        serialize_i128(i128) => |w, v| w.wide(zigzag_wide(v));
        serialize_u8(u8) => |w, v| w.byte(v);
        serialize_u16(u16) => |w, v| w.number(v.into());
        serialize_u32(u32) => |w, v| w.number(v.into());
        serialize_u64(u64) => |w, v| w.number(v);
        serialize_u128(u128) => |w, v| w.wide(v);
        serialize_f32(f32) => |w, v| w.bytes(&v.to_le_bytes());
        serialize_f64(f64) => |w, v| w.bytes(&v.to_le_bytes());
    }

    #[inline]
    fn serialize_char(self, value: char) -> Result<(), Fault> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Fault> {
        self.serialize_bytes(value.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<(), Fault> {
        self.writer.number(value.len() as u64)?;
        self.writer.bytes(value)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn serialize_none(self) -> Result<(), Fault> {
        self.serialize_u8(0)
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Fault> {
        self.writer.byte(1)?;
        self.nested(value)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), Fault> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Fault> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<(), Fault> {
        self.notes.variant(name, index, variant);
        self.serialize_u32(index)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        self.nested(value)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        self.notes.variant(name, index, variant);
        self.writer.number(index.into())?;
        self.nested(value)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self, Fault> {
        self.elements(len, "a sequence that does not know its length")?;
        Ok(self)
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Self, Fault> {
        self.enter()?;
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Fault> {
        self.enter()?;
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self, Fault> {
        self.notes.variant(name, index, variant);
        self.enter()?;
        self.writer.number(index.into())?;
        Ok(self)
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Self, Fault> {
        self.elements(len, "`serde(flatten)`, or a map that does not know its length,")?;
        Ok(self)
    }

    #[inline]
    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, Fault> {
        let note = self.notes.structure(name);
        self.fields(name, note, len)
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, Fault> {
        let note = self.notes.variant(name, index, variant);
        self.writer.number(index.into())?;
        self.fields(name, note, len)
    }

    #[inline]
    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), Fault> {
        let mut text = String::new();
        match write!(text, "{value}") {
            Ok(()) => self.serialize_str(&text),
            Err(_) => Err(ser::Error::custom("its `Display` returned an error")),
        }
    }
}

/// Elements are written one after the other; only their count, if any, comes first.
macro_rules! elements {
    ($($trait:ident { $($method:ident),* })*) => {$(
        impl<N: Notes> ser::$trait for &mut Encoder<'_, N> {
            type Ok = ();
            type Error = Fault;

            $(
                #[inline]
                fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
                    value.serialize(&mut **self)
                }
            )*

            #[inline]
            fn end(self) -> Result<(), Fault> {
                self.leave();
                Ok(())
            }
        }
    )*};
}

elements! {
    SerializeSeq { serialize_element }
    SerializeTuple { serialize_element }
    SerializeTupleStruct { serialize_field }
    SerializeTupleVariant { serialize_field }
    SerializeMap { serialize_key, serialize_value }
}

macro_rules! fields {
    ($($trait:ident)*) => {$(
        impl<N: Notes> ser::$trait for Fields<'_, Encoder<'_, N>> {
            type Ok = ();
            type Error = Fault;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), Fault> {
                self.field(key, value)
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), Fault> {
                Err(self.skip(key))
            }

            #[inline]
            fn end(self) -> Result<(), Fault> {
                self.end()
            }
        }
    )*};
}

fields! { SerializeStruct SerializeStructVariant }
