//! Pages of lists: the parameters and the size of a page.

use std::str::FromStr;

use fanfare_domain::ids::InvalidId;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::http::{error::ApiError, parameters::id};

/// Page of a list with texts as cursors.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// The `next` of the previous page.
    pub before: Option<String>,
    /// 1 to 100. Default: 100.
    pub limit: Option<usize>,
}

/// Page of a list with ids as cursors.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// The `next` of the previous page.
    pub before: Option<String>,
    /// 1 to 100. Default: 50.
    pub limit: Option<usize>,
}

impl Paging {
    /// The item before the page, and the size of the page.
    pub(crate) fn parse<T: FromStr<Err = InvalidId>>(&self) -> Result<(Option<T>, PageSize), ApiError> {
        let before = self.before.as_deref().map(|text| id("before", text)).transpose()?;
        Ok((before, page_size(self.limit)?))
    }
}

/// The maximum number of items on a page.
#[derive(Clone, Copy)]
pub(crate) struct PageSize(usize);

impl PageSize {
    pub(crate) fn items(self) -> usize {
        self.0
    }

    /// The number of rows to query. The additional row proves another page.
    pub(crate) fn rows(self) -> usize {
        self.0 + 1
    }
}

/// Checks the requested size of a page: 1 to 100, by default 50.
pub(crate) fn page_size(asked: Option<usize>) -> Result<PageSize, ApiError> {
    const MOST: usize = 100;
    match asked.unwrap_or(50) {
        size @ 1..=MOST => Ok(PageSize(size)),
        _ => Err(ApiError::invalid("limit", format!("must be between 1 and {MOST}"))),
    }
}
