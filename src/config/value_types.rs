//! Types of values: how each is read, what is allowed of itself, and how the file writes it.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::spec::ValueKind;
use super::value::ValueReader;
use super::words::{Word, words};
use crate::base::rate::Rate;
use crate::base::units::{format_duration, format_size};

/// A type that a value of the file is read as.
pub(crate) trait FromValue: Sized {
    /// `None`: the value is wrong, which is noted.
    fn read(value: &ValueReader<'_>) -> Option<Self>;
}

/// A type that says by itself what is allowed.
pub(crate) trait HasKind {
    const KIND: ValueKind;
}

/// A type of defaults, which the schema and the reference page show.
pub(crate) trait AsWritten {
    /// The value as the file would write it.
    fn as_written(&self, kind: &ValueKind) -> Value;
}

/// Reads a string by `read`.
pub(crate) fn text<T>(
    read: impl Fn(&str) -> Result<T, &'static str>,
) -> impl Fn(&ValueReader<'_>) -> Option<T> {
    move |value| value.text_by(&read)
}

/// Reads a list of strings, each by `read`.
pub(crate) fn texts<T>(
    read: impl Fn(&str) -> Result<T, &'static str>,
) -> impl Fn(&ValueReader<'_>) -> Option<Vec<T>> {
    move |value| {
        let items = value.items();
        Some(items.filter_map(|item| item.text_by(&read)).collect())
    }
}

/// Reads a string by its type.
pub(crate) fn parsed<T: FromStr<Err = &'static str>>(value: &ValueReader<'_>) -> Option<T> {
    value.text_by(T::from_str)
}

impl FromValue for bool {
    fn read(value: &ValueReader<'_>) -> Option<Self> {
        value.flag()
    }
}

impl FromValue for Duration {
    fn read(value: &ValueReader<'_>) -> Option<Self> {
        value.time()
    }
}

impl FromValue for Rate {
    fn read(value: &ValueReader<'_>) -> Option<Self> {
        value.rate()
    }
}

impl FromValue for String {
    fn read(value: &ValueReader<'_>) -> Option<Self> {
        value.string().map(str::to_owned)
    }
}

/// The path of a file, joined to the folder of the configuration.
impl FromValue for PathBuf {
    fn read(value: &ValueReader<'_>) -> Option<Self> {
        value.path()
    }
}

impl<T: Word> FromValue for T {
    fn read(value: &ValueReader<'_>) -> Option<Self> {
        let found = value.word(&words::<T>())?;
        T::of(found)
    }
}

impl<T: FromValue> FromValue for Vec<T> {
    fn read(value: &ValueReader<'_>) -> Option<Self> {
        let items: Vec<_> = value.items().map(|item| T::read(&item)).collect();
        items.into_iter().collect()
    }
}

impl<T: FromValue> FromValue for Arc<T> {
    fn read(value: &ValueReader<'_>) -> Option<Self> {
        T::read(value).map(Arc::new)
    }
}

impl HasKind for bool {
    const KIND: ValueKind = ValueKind::Flag;
}

impl HasKind for Rate {
    const KIND: ValueKind = ValueKind::Rate;
}

impl<T: Word> HasKind for T {
    const KIND: ValueKind = ValueKind::Word(words::<T>);
}

impl<T: HasKind> HasKind for Option<T> {
    const KIND: ValueKind = T::KIND;
}

impl<T: HasKind> HasKind for Arc<T> {
    const KIND: ValueKind = T::KIND;
}

macro_rules! whole_numbers {
    ($($Type:ty),+) => {
        $(
            impl FromValue for $Type {
                fn read(value: &ValueReader<'_>) -> Option<Self> {
                    Self::try_from(value.whole_number()?).ok()
                }
            }

            impl AsWritten for $Type {
                fn as_written(&self, kind: &ValueKind) -> Value {
                    match kind {
                        ValueKind::Size { .. } => json!(format_size(*self as u64)),
                        ValueKind::Percent { .. } => json!(format!("{self}%")),
                        _ => json!(self),
                    }
                }
            }
        )+
    };
}

whole_numbers!(u8, u16, u32, u64, usize);

impl AsWritten for bool {
    fn as_written(&self, _: &ValueKind) -> Value {
        json!(self)
    }
}

impl AsWritten for Duration {
    fn as_written(&self, _: &ValueKind) -> Value {
        json!(format_duration(*self))
    }
}

impl AsWritten for Rate {
    fn as_written(&self, _: &ValueKind) -> Value {
        json!(self.to_string())
    }
}

impl AsWritten for String {
    fn as_written(&self, _: &ValueKind) -> Value {
        json!(self)
    }
}

impl AsWritten for SocketAddr {
    fn as_written(&self, _: &ValueKind) -> Value {
        json!(self.to_string())
    }
}

impl AsWritten for Arc<str> {
    fn as_written(&self, _: &ValueKind) -> Value {
        json!(&**self)
    }
}

impl AsWritten for RangeInclusive<u16> {
    fn as_written(&self, _: &ValueKind) -> Value {
        json!(format!("{}-{}", self.start(), self.end()))
    }
}

impl<T: Word> AsWritten for T {
    fn as_written(&self, _: &ValueKind) -> Value {
        json!(self.word())
    }
}

impl<T: AsWritten> AsWritten for Vec<T> {
    fn as_written(&self, kind: &ValueKind) -> Value {
        self.iter().map(|item| item.as_written(kind)).collect()
    }
}

/// `None` of a [`ValueKind::FlagOrTable`] is `false`.
impl<T> AsWritten for Option<T> {
    fn as_written(&self, _: &ValueKind) -> Value {
        json!(self.is_some())
    }
}
