//! Counters declared once. One list gives the atomics that the data path adds to, their values at
//! one moment for the admin API, and the metric of each.

/// Metric that a number is shown as. Numbers of one family follow each other and differ by a label.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Name of the family, without the prefix, the unit and `_total`.
    pub name: &'static str,
    pub help: &'static str,
    pub is_gauge: bool,
    /// `bytes` or `seconds`.
    pub unit: Option<&'static str>,
    pub label: Option<(&'static str, &'static str)>,
}

/// Metric of one number of a struct, and how to read it.
pub(crate) type MetricOf<T> = (Metric, fn(&T) -> u64);

impl Metric {
    pub const fn counter(name: &'static str) -> Metric {
        Metric {
            name,
            help: "",
            is_gauge: false,
            unit: None,
            label: None,
        }
    }

    pub const fn gauge(name: &'static str) -> Metric {
        Metric {
            is_gauge: true,
            ..Metric::counter(name)
        }
    }

    pub const fn bytes(self) -> Metric {
        Metric {
            unit: Some("bytes"),
            ..self
        }
    }

    pub const fn seconds(self) -> Metric {
        Metric {
            unit: Some("seconds"),
            ..self
        }
    }

    pub const fn label(self, name: &'static str, value: &'static str) -> Metric {
        Metric {
            label: Some((name, value)),
            ..self
        }
    }

    /// Sets the help text, where the doc comment does not speak of the whole family.
    pub const fn help(self, help: &'static str) -> Metric {
        Metric { help, ..self }
    }

    /// Sets the help text, unless it is set.
    pub const fn or_help(self, doc: &'static str) -> Metric {
        if self.help.is_empty() {
            self.help(doc.trim_ascii())
        } else {
            self
        }
    }
}

/// Declares a struct of numbers with the metric of each: `field = METRIC`. A doc comment of one
/// line is the metric's help text, too.
macro_rules! values {
    (
        $(#[$about:meta])*
        $vis:vis struct $values:ident { $(#[doc = $doc:literal] $field:ident = $metric:expr,)+ }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(default)]
        $vis struct $values { $(#[doc = $doc] pub $field: u64,)+ }

        impl $values {
            $vis const METRICS: &'static [$crate::observe::MetricOf<$values>] =
                &[$(($metric.or_help($doc), |values| values.$field),)+];
        }
    };
}

/// Declares counters beside the plain fields of their struct, and the struct of their values.
macro_rules! counters {
    (
        $(#[$about:meta])*
        $outer:vis struct $counters:ident { $($(#[$note:meta])* $vis:vis $plain:ident: $type:ty,)* }
        $(#[$values_about:meta])*
        $values_vis:vis struct $values:ident { $(#[doc = $doc:literal] $field:ident = $metric:expr,)+ }
    ) => {
        $(#[$about])*
        #[derive(Debug)]
        $outer struct $counters {
            $($(#[$note])* $vis $plain: $type,)*
            $(#[doc = $doc] pub $field: std::sync::atomic::AtomicU64,)+
        }

        impl $counters {
            #[allow(clippy::too_many_arguments, reason = "one for each plain field of the struct")]
            fn zero($($plain: $type),*) -> $counters {
                $counters { $($plain,)* $($field: std::sync::atomic::AtomicU64::new(0),)+ }
            }

            /// Reads every counter.
            $values_vis fn values(&self) -> $values {
                let relaxed = std::sync::atomic::Ordering::Relaxed;
                $values { $($field: self.$field.load(relaxed),)+ }
            }

            /// Adds the growth of the same counters in another process, between two looks. A gauge
            /// may shrink.
            #[allow(dead_code, reason = "not every set of counters outlives its process")]
            $values_vis fn grow(&self, before: &$values, now: &$values) {
                let relaxed = std::sync::atomic::Ordering::Relaxed;
                $(self.$field.fetch_add(now.$field.wrapping_sub(before.$field), relaxed);)+
            }
        }

        impl $values {
            /// The totals alone: of a process that is gone, no gauge is left.
            #[allow(dead_code, reason = "not every set of counters outlives its process")]
            $values_vis fn totals(&self) -> $values {
                $values { $($field: if $metric.is_gauge { 0 } else { self.$field },)+ }
            }
        }

        $crate::observe::values! {
            $(#[$values_about])*
            $values_vis struct $values { $(#[doc = $doc] $field = $metric,)+ }
        }
    };
}

pub(crate) use {counters, values};
