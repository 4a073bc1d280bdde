//! Sampling of traces.

use std::str::FromStr;

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

/// Name of a sampler, in the words of OpenTelemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SamplerName {
    AlwaysOn,
    AlwaysOff,
    Ratio,
    ParentBasedAlwaysOn,
    ParentBasedAlwaysOff,
    ParentBasedRatio,
}

impl FromStr for SamplerName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "always_on" => Ok(Self::AlwaysOn),
            "always_off" => Ok(Self::AlwaysOff),
            "traceidratio" => Ok(Self::Ratio),
            "parentbased_always_on" => Ok(Self::ParentBasedAlwaysOn),
            "parentbased_always_off" => Ok(Self::ParentBasedAlwaysOff),
            "parentbased_traceidratio" => Ok(Self::ParentBasedRatio),
            _ => Err("expected always_on, always_off or traceidratio, alone or behind parentbased_"),
        }
    }
}

/// Sampled part of all traces, from 0 to 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ratio(f64);

impl FromStr for Ratio {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.map(Self).ok_or("expected a number from 0.0 to 1.0")
    }
}

/// Samples a span that begins a trace and has a link exactly if the linked trace is sampled: the attempts of an event are
/// sampled all or none. The sampler of the settings decides all other spans.
#[derive(Debug, Clone)]
pub(super) struct FollowLinks(Sampler);

impl FollowLinks {
    pub(super) fn new(name: SamplerName, Ratio(ratio): Ratio) -> Self {
        let parent_based = |root| Sampler::ParentBased(Box::new(root));
        Self(match name {
            SamplerName::AlwaysOn => Sampler::AlwaysOn,
            SamplerName::AlwaysOff => Sampler::AlwaysOff,
            SamplerName::Ratio => Sampler::TraceIdRatioBased(ratio),
            SamplerName::ParentBasedAlwaysOn => parent_based(Sampler::AlwaysOn),
            SamplerName::ParentBasedAlwaysOff => parent_based(Sampler::AlwaysOff),
            SamplerName::ParentBasedRatio => parent_based(Sampler::TraceIdRatioBased(ratio)),
        })
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
        let sampler = FollowLinks::new(name.parse().expect("a sampler"), Ratio(0.0));
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
