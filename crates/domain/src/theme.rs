//! Themes of the portal: checked values, printed as a stylesheet.
//!
//! Colours are sRGB. Contrast follows WCAG 2.2: text needs 4.5:1 against its ground (success criterion 1.4.3).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Least contrast of text against its ground.
pub const LEAST_CONTRAST: f64 = 4.5;

/// Grounds of links in the light scheme, as in the stylesheet of the pages.
pub const LIGHT_GROUNDS: [Color; 4] =
    [Color([0xff; 3]), Color([0xf6, 0xf7, 0xf9]), Color([0xec, 0xef, 0xf3]), Color([0xe6, 0xef, 0xfb])];

/// Grounds of links in the dark scheme, as in the stylesheet of the pages.
pub const DARK_GROUNDS: [Color; 4] =
    [Color([0x12, 0x16, 0x1b]), Color([0x1a, 0x1f, 0x26]), Color([0x23, 0x2a, 0x33]), Color([0x14, 0x25, 0x3d])];

/// The largest radius of corners, in pixels.
pub const MAX_RADIUS: u8 = 12;

/// A colour: red, green and blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Color(pub [u8; 3]);

/// The text is no colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a colour like #0b57c2: a number sign and six hexadecimal digits")]
pub struct InvalidColor;

impl FromStr for Color {
    type Err = InvalidColor;

    fn from_str(text: &str) -> Result<Self, InvalidColor> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6).ok_or(InvalidColor)?;
        // `from_str_radix` would accept a sign.
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidColor);
        }
        let [_, red, green, blue] = u32::from_str_radix(digits, 16).map_err(|_| InvalidColor)?.to_be_bytes();
        Ok(Self([red, green, blue]))
    }
}

impl TryFrom<String> for Color {
    type Error = InvalidColor;

    fn try_from(text: String) -> Result<Self, InvalidColor> {
        text.parse()
    }
}

impl From<Color> for String {
    fn from(color: Color) -> Self {
        color.to_string()
    }
}

impl fmt::Display for Color {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([red, green, blue]) = self;
        write!(formatter, "#{red:02x}{green:02x}{blue:02x}")
    }
}

impl Color {
    const WHITE: Self = Self([0xff; 3]);
    const BLACK: Self = Self([0; 3]);

    /// Relative luminance, 0 to 1: <https://www.w3.org/TR/WCAG22/#dfn-relative-luminance>.
    pub fn luminance(self) -> f64 {
        let [red, green, blue] = self.0.map(|channel| {
            let share = f64::from(channel) / 255.0;
            if share <= 0.04045 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }

    /// Contrast of two colours, 1 to 21: <https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio>.
    pub fn contrast(self, other: Self) -> f64 {
        let (one, two) = (self.luminance(), other.luminance());
        (one.max(two) + 0.05) / (one.min(two) + 0.05)
    }

    /// The nearest mixture with `end` that has the contrast of text against all `grounds`; `end` itself if none has.
    fn towards(self, end: Self, grounds: &[Self]) -> Self {
        const STEPS: u32 = 255;
        let passes = |color: &Self| grounds.iter().all(|ground| color.contrast(*ground) >= LEAST_CONTRAST);
        (0..=STEPS).map(|step| self.mixed(end, step, STEPS)).find(passes).unwrap_or(end)
    }

    /// The mixture with `part` of `whole` parts of another colour.
    fn mixed(self, other: Self, part: u32, whole: u32) -> Self {
        let mut mixed = self.0;
        for (channel, other) in mixed.iter_mut().zip(other.0) {
            let sum = u32::from(*channel) * (whole - part) + u32::from(other) * part;
            *channel = u8::try_from(sum / whole).unwrap_or(u8::MAX);
        }
        Self(mixed)
    }
}

/// An accent that passes in both schemes, as a link on each ground and as the ground of a button's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accent {
    /// The accent of the light scheme. Its text is white.
    pub light: Color,
    /// The accent of the dark scheme. Its text has the colour of the darkest ground.
    pub dark: Color,
}

impl Accent {
    /// Darkens a colour for the light scheme, and lightens the colour for the dark scheme, as far as needed.
    pub fn of(color: Color) -> Self {
        Self { light: color.towards(Color::BLACK, &LIGHT_GROUNDS), dark: color.towards(Color::WHITE, &DARK_GROUNDS) }
    }
}

macro_rules! words {
    ($(#[$docs:meta])* $name:ident { $($(#[$variant_docs:meta])* $variant:ident = $word:literal),+ }) => {
        $(#[$docs])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name {
            $($(#[$variant_docs])* $variant),+
        }

        impl $name {
            /// All values.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word of the API.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }

            /// Parses the word of the API.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == text)
            }
        }
    };
}

words! {
    /// Font of all texts but ids, URLs and JSON.
    Font {
        /// The font of the visitor's system.
        #[default]
        System = "system",
        /// A font with serifs.
        Serif = "serif",
        /// A font whose letters have the same width.
        Mono = "mono"
    }
}

words! {
    /// Colours of the grounds.
    Scheme {
        /// The colours that the visitor's system asks for.
        #[default]
        Auto = "auto",
        /// Light grounds.
        Light = "light",
        /// Dark grounds.
        Dark = "dark"
    }
}

words! {
    /// Height of rows.
    Density {
        /// 36 pixels.
        #[default]
        Usual = "usual",
        /// 28 pixels.
        Compact = "compact"
    }
}

/// Radius of corners, in pixels: 0 to [`MAX_RADIUS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Radius(u8);

/// The number is no radius.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number of pixels, 0 to {MAX_RADIUS}")]
pub struct InvalidRadius;

impl TryFrom<u64> for Radius {
    type Error = InvalidRadius;

    fn try_from(pixels: u64) -> Result<Self, InvalidRadius> {
        u8::try_from(pixels).ok().filter(|pixels| *pixels <= MAX_RADIUS).map(Self).ok_or(InvalidRadius)
    }
}

impl From<Radius> for u64 {
    fn from(Radius(pixels): Radius) -> Self {
        pixels.into()
    }
}

/// The look of a portal. The parts that are not given are those of the console. Members of a later release are not
/// read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Theme {
    /// Colour of links and buttons, before the correction of [`Accent::of`].
    pub accent: Option<Color>,
    /// Radius of corners.
    pub radius: Option<Radius>,
    /// Font of the texts.
    pub font: Font,
    /// Colours of the grounds. The page's root element tells the scheme, since the visitor may choose another: the
    /// stylesheet does not.
    pub scheme: Scheme,
    /// Height of rows.
    pub density: Density,
}

impl Theme {
    /// Prints the stylesheet: custom properties of the pages' stylesheet.
    pub fn sheet(&self) -> String {
        let mut lines = Vec::new();
        if let Some(color) = self.accent {
            let Accent { light, dark } = Accent::of(color);
            lines.push(format!("--accent: light-dark({light}, {dark});"));
            lines.push(format!("--on-accent: light-dark({}, {});", LIGHT_GROUNDS[0], DARK_GROUNDS[0]));
            lines.push("--link: var(--accent);".to_owned());
        }
        if let Some(Radius(pixels)) = self.radius {
            lines.push(format!("--radius: {pixels}px;"));
        }
        match self.font {
            Font::System => {}
            Font::Serif => lines.push("--sans: Charter, Georgia, serif;".to_owned()),
            Font::Mono => lines.push("--sans: var(--mono);".to_owned()),
        }
        if self.density == Density::Compact {
            lines.push("--row: 28px;".to_owned());
        }
        let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
        format!(":root {{\n{lines}}}\n")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Words and marks that a stylesheet may hold, beside numbers and colours.
    const KNOWN: [&str; 22] = [
        ":root",
        "--accent",
        "--on-accent",
        "--link",
        "--radius",
        "--sans",
        "--row",
        "--mono",
        "light-dark",
        "var",
        "px",
        "Charter",
        "Georgia",
        "serif",
        "{",
        "}",
        "(",
        ")",
        ":",
        ";",
        ",",
        " ",
    ];

    fn any_theme() -> impl Strategy<Value = Theme> {
        let colors = proptest::option::of(any::<[u8; 3]>().prop_map(Color));
        let radii = proptest::option::of((0..=MAX_RADIUS).prop_map(Radius));
        let words = (
            proptest::sample::select(Font::ALL),
            proptest::sample::select(Scheme::ALL),
            proptest::sample::select(Density::ALL),
        );
        (colors, radii, words).prop_map(|(accent, radius, (font, scheme, density))| Theme {
            accent,
            radius,
            font,
            scheme,
            density,
        })
    }

    proptest! {
        #[test]
        fn every_accent_passes_after_the_correction(channels: [u8; 3]) {
            let Accent { light, dark } = Accent::of(Color(channels));
            for (accent, grounds) in [(light, LIGHT_GROUNDS), (dark, DARK_GROUNDS)] {
                for ground in grounds {
                    prop_assert!(accent.contrast(ground) >= LEAST_CONTRAST, "{} on {}", accent, ground);
                }
            }
        }

        #[test]
        fn the_sheet_holds_only_numbers_and_known_words(theme in any_theme()) {
            let sheet = theme.sheet().replace('\n', " ");
            let mut rest = sheet.as_str();
            'all: while !rest.is_empty() {
                let digits = rest.trim_start_matches('#').len();
                let number = rest.bytes().skip(rest.len() - digits).take_while(u8::is_ascii_hexdigit).count();
                let is_color = rest.starts_with('#') && number == 6;
                let plain = rest.bytes().take_while(u8::is_ascii_digit).count();
                if is_color || plain > 0 {
                    rest = &rest[if is_color { 7 } else { plain }..];
                    continue;
                }
                for known in KNOWN {
                    if let Some(after) = rest.strip_prefix(known) {
                        rest = after;
                        continue 'all;
                    }
                }
                prop_assert!(false, "{rest}");
            }
        }

        #[test]
        fn themes_and_colours_round_trip(theme in any_theme(), channels: [u8; 3]) {
            let text = serde_json::to_string(&theme).expect("a theme has only texts and numbers");
            prop_assert_eq!(serde_json::from_str::<Theme>(&text).ok(), Some(theme));
            prop_assert_eq!(Color(channels).to_string().parse(), Ok(Color(channels)));
        }

        #[test]
        fn other_texts_are_no_colour(text in "#?[0-9a-fA-F+; }]{5,8}") {
            let is_color = text.len() == 7 && text.starts_with('#')
                && text.bytes().skip(1).all(|byte| byte.is_ascii_hexdigit());
            prop_assert_eq!(text.parse::<Color>().is_ok(), is_color);
        }
    }

    #[test]
    fn contrasts_are_those_of_wcag() {
        assert!((Color::WHITE.contrast(Color::BLACK) - 21.0).abs() < 1e-9);
        // The lightest grey that passes on white.
        assert!(Color([0x76; 3]).contrast(Color::WHITE) >= LEAST_CONTRAST);
        assert!(Color([0x77; 3]).contrast(Color::WHITE) < LEAST_CONTRAST);
    }

    #[test]
    fn an_accent_that_passes_stays() {
        let blue = Color([0x0b, 0x57, 0xc2]);
        assert_eq!(Accent::of(blue).light, blue);
        let yellow = Accent::of(Color([0xff, 0xcc, 0]));
        assert_eq!((yellow.light.to_string().as_str(), yellow.dark.to_string().as_str()), ("#846900", "#ffcc00"));
    }

    #[test]
    fn texts_of_a_theme_are_checked() {
        for wrong in [
            r#"{"accent":"red"}"#,
            r##"{"accent":"#fff"}"##,
            r#"{"radius":13}"#,
            r#"{"font":"Comic Sans"}"#,
            r#"{"density":"}"}"#,
        ] {
            assert!(serde_json::from_str::<Theme>(wrong).is_err(), "{wrong}");
        }
        let theme: Theme = serde_json::from_str(r##"{"accent":"#ffcc00","radius":0}"##).expect("a theme");
        assert!(theme.sheet().contains("--radius: 0px;") && Theme::default().sheet() == ":root {\n}\n");
    }
}
