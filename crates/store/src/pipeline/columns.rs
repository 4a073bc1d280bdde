//! Batches as named columns: the parameters of a statement with `unnest`.

use tokio_postgres::types::ToSql;

/// Columns of a batch, each an array parameter of a statement. One line holds a column's name, type and value.
pub(crate) struct Columns<'a, T> {
    rows: &'a [T],
    first: usize,
    definitions: Vec<(&'static str, &'static str)>,
    values: Vec<Box<dyn ToSql + Sync + Send + 'a>>,
}

impl<'a, T> Columns<'a, T> {
    /// Starts without columns. The first column becomes the parameter `$first`.
    pub(crate) fn new(rows: &'a [T], first: usize) -> Self {
        Self { rows, first, definitions: Vec::new(), values: Vec::new() }
    }

    /// Adds a column with the PostgreSQL type `kind`.
    pub(crate) fn column<V>(mut self, name: &'static str, kind: &'static str, value: impl Fn(&'a T) -> V) -> Self
    where
        V: ToSql + Sync + Send + 'a,
    {
        let values: Vec<V> = self.rows.iter().map(value).collect();
        self.definitions.push((name, kind));
        self.values.push(Box::new(values));
        self
    }

    /// Table expression of the rows, for a FROM clause.
    pub(crate) fn table(&self, alias: &str) -> String {
        let numbered = self.definitions.iter().zip(self.first..);
        let arrays: Vec<String> = numbered.map(|((_, kind), number)| format!("${number}::{kind}[]")).collect();
        let names: Vec<&str> = self.definitions.iter().map(|(name, _)| *name).collect();
        format!("unnest({}) AS {alias}({})", arrays.join(", "), names.join(", "))
    }

    /// Assignments of all columns in an UPDATE, from the rows `alias`.
    pub(crate) fn assignments(&self, alias: &str) -> String {
        let assignments = self.definitions.iter().map(|(name, _)| format!("{name} = {alias}.{name}"));
        assignments.collect::<Vec<_>>().join(", ")
    }

    /// Number of the first parameter behind the columns.
    pub(crate) fn end(&self) -> usize {
        self.first + self.definitions.len()
    }

    /// Parameter of a column.
    pub(crate) fn parameter(&self, name: &str) -> String {
        let position = self.definitions.iter().position(|(column, _)| *column == name).unwrap_or_default();
        format!("${}", self.first + position)
    }

    /// The value of a column in the row whose column `key` equals `value`, both in SQL. Unlike a join, the look-up
    /// leaves the planner no choice.
    pub(crate) fn value(&self, name: &str, key: &str, value: &str) -> String {
        let of = |name: &str| {
            let kind = self.definitions.iter().find(|(column, _)| *column == name).map_or("", |(_, kind)| kind);
            format!("({}::{kind}[])", self.parameter(name))
        };
        format!("{}[array_position({}, {value})]", of(name), of(key))
    }

    /// Values of the columns, in the order of their parameters.
    pub(crate) fn values(&self) -> impl Iterator<Item = &(dyn ToSql + Sync)> {
        self.values.iter().map(|values| values.as_ref() as &(dyn ToSql + Sync))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_numbered_from_the_first_parameter() {
        let rows = [(1i32, "a"), (2, "b")];
        let columns = Columns::new(&rows, 3).column("number", "int", |row| row.0).column("word", "text", |row| row.1);
        assert_eq!(columns.table("i"), "unnest($3::int[], $4::text[]) AS i(number, word)");
        assert_eq!((columns.end(), columns.parameter("word").as_str(), columns.values().count()), (5, "$4", 2));
    }
}
