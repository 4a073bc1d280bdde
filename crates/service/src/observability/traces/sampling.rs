//! Sampling of traces.

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

/// Samples a span that begins a trace and has a link exactly if the linked trace is sampled: either all attempts of an
/// event are sampled, or none. The sampler of the settings decides all other spans.
#[derive(Debug, Clone)]
pub(super) struct FollowLinks(Sampler);

impl Default for FollowLinks {
    fn default() -> Self {
        Self(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
    }
}

impl FollowLinks {
    /// Picks a sampler by the values of `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`.
    ///
    /// # Errors
    /// The variable with a wrong value, and the permitted values.
    pub(super) fn new(name: &str, ratio: &str) -> Result<Self, (&'static str, &'static str)> {
        let ratio = ratio.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        let ratio = ratio.ok_or(("OTEL_TRACES_SAMPLER_ARG", "a number from 0.0 to 1.0"))?;
        let root = match name.strip_prefix("parentbased_").unwrap_or(name) {
            "always_on" => Sampler::AlwaysOn,
            "always_off" => Sampler::AlwaysOff,
            "traceidratio" => Sampler::TraceIdRatioBased(ratio),
            _ => {
                let expected = "always_on, always_off or traceidratio, alone or behind parentbased_";
                return Err(("OTEL_TRACES_SAMPLER", expected));
            }
        };
        Ok(Self(if name.starts_with("parentbased_") { Sampler::ParentBased(Box::new(root)) } else { root }))
    }
}

impl ShouldSample for FollowLinks {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let has_parent = parent.is_some_and(|parent| parent.span().span_context().is_valid());
        match links.first() {
            Some(link) if !has_parent => SamplingResult {
                decision: if link.span_context.is_sampled() {
                    SamplingDecision::RecordAndSample
                } else {
                    SamplingDecision::Drop
                },
                attributes: Vec::new(),
                trace_state: TraceState::default(),
            },
            _ => self.0.should_sample(parent, trace, name, kind, attributes, links),
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags};

    use super::*;

    fn decision(name: &str, parent: Option<TraceFlags>, link: Option<TraceFlags>) -> SamplingDecision {
        let context = |flags| {
            let (trace, span) = (TraceId::from_bytes([1; 16]), SpanId::from_bytes([1; 8]));
            SpanContext::new(trace, span, flags, true, TraceState::default())
        };
        let sampler = FollowLinks::new(name, "0.0").expect("a sampler");
        let parent = parent.map(|flags| Context::new().with_remote_span_context(context(flags)));
        let links: Vec<Link> = link.map(|flags| Link::new(context(flags), Vec::new(), 0)).into_iter().collect();
        let trace = TraceId::from_bytes([255; 16]);
        sampler.should_sample(parent.as_ref(), trace, "POST", &SpanKind::Client, &[], &links).decision
    }

    #[test]
    fn a_linked_root_follows_the_link() {
        for sampler in ["always_on", "always_off", "parentbased_traceidratio"] {
            let linked = |flags| decision(sampler, None, Some(flags));
            assert_eq!(linked(TraceFlags::SAMPLED), SamplingDecision::RecordAndSample, "{sampler}");
            assert_eq!(linked(TraceFlags::default()), SamplingDecision::Drop, "{sampler}");
        }
    }

    #[test]
    fn the_named_sampler_decides_other_spans() {
        assert_eq!(decision("always_on", None, None), SamplingDecision::RecordAndSample);
        assert_eq!(decision("always_off", Some(TraceFlags::SAMPLED), None), SamplingDecision::Drop);
        assert_eq!(decision("traceidratio", Some(TraceFlags::SAMPLED), None), SamplingDecision::Drop);
        for sampler in ["parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"] {
            let of_parent = |flags| decision(sampler, Some(flags), None);
            assert_eq!(of_parent(TraceFlags::SAMPLED), SamplingDecision::RecordAndSample, "{sampler}");
            assert_eq!(of_parent(TraceFlags::default()), SamplingDecision::Drop, "{sampler}");
        }
    }
}
