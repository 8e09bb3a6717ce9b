//! States as nobody has saved them, for the tests of those who restore.

use serde_json::{Map, Number, Value};

/// Changes one thing in `state`: a number to one that is near or far, a digit of a blob, a flag, a
/// field that is missing, one too many, a part where another belongs. The same `seed` makes the same
/// change.
pub fn mutate(state: &mut Value, seed: u64) {
    let mut random = Random(seed);
    let other = pick(state, &mut random).clone();
    change(pick(state, &mut random), other, &mut random);
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.next() % end).unwrap_or(0)
    }
}

/// Nodes of the tree.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(values) => values.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// Any node.
fn pick<'a>(value: &'a mut Value, random: &mut Random) -> &'a mut Value {
    let mut number = random.below(count(value));
    let mut at = value;
    while number != 0 {
        number -= 1;
        let within = |child: &Value, number: &mut usize| {
            let here = count(child);
            let found = *number < here;
            if !found {
                *number -= here;
            }
            found
        };
        let child = match at {
            Value::Array(values) => values.iter_mut().find(|child| within(child, &mut number)),
            Value::Object(fields) => fields.values_mut().find(|child| within(child, &mut number)),
            _ => None,
        };
        at = child.expect("no more nodes than were counted");
    }
    at
}

fn change(place: &mut Value, other: Value, random: &mut Random) {
    if random.below(12) == 0 {
        *place = if random.below(4) == 0 { Value::Null } else { other };
        return;
    }
    match place {
        Value::Null => *place = other,
        Value::Bool(flag) => *flag = !*flag,
        Value::Number(number) => change_number(number, random),
        Value::String(text) => change_text(text, random),
        Value::Array(values) => change_list(values, other, random),
        Value::Object(fields) => change_fields(fields, other, random),
    }
}

fn change_number(number: &mut Number, random: &mut Random) {
    let Some(now) = number.as_u64() else {
        *number = 0.into();
        return;
    };
    let bits = [0, 1, 3, 4, 5, 7, 8, 12, 15, 16, 31, 32, 48, 63];
    let bit = 1 << bits[random.below(bits.len())];
    *number = match random.below(9) {
        0 => 0.into(),
        1 => now.wrapping_add(1).into(),
        2 => now.wrapping_sub(1).into(),
        3 => (now ^ bit).into(),
        4 => (now ^ 1 << random.below(64)).into(),
        5 => bit.wrapping_sub(1).into(),
        6 => bit.into(),
        7 => (-1).into(),
        _ => random.next().into(),
    };
}

fn change_text(text: &mut String, random: &mut Random) {
    let mut characters: Vec<char> = text.chars().collect();
    let at = random.below(characters.len());
    let digit = char::from_digit(u32::try_from(random.below(16)).unwrap_or(0), 16).unwrap_or('0');
    match random.below(8) {
        0 => characters.truncate(at),
        1 => characters.extend_from_within(..),
        2 => characters.insert(at, digit),
        3 => characters.insert(at, '\u{fffd}'),
        _ if characters.is_empty() => characters.push(digit),
        _ => characters[at] = digit,
    }
    *text = characters.into_iter().collect();
}

fn change_list(values: &mut Vec<Value>, other: Value, random: &mut Random) {
    let at = random.below(values.len());
    match random.below(6) {
        0 => values.push(other),
        1 => values.insert(at, other),
        2 => values.clear(),
        _ if values.is_empty() => values.push(Value::from(random.next() % 300)),
        3 => drop(values.remove(at)),
        4 => values.push(values[at].clone()),
        _ => values.reverse(),
    }
}

fn change_fields(fields: &mut Map<String, Value>, other: Value, random: &mut Random) {
    let names: Vec<String> = fields.keys().cloned().collect();
    let name = |at: usize| names.get(at).cloned().unwrap_or_default();
    let (one, two) = (name(random.below(names.len())), name(random.below(names.len())));
    match random.below(4) {
        0 => drop(fields.insert("unknown".into(), other)),
        1 => drop(fields.remove(&one)),
        2 => drop(fields.insert(one, other)),
        _ => {
            if let Some(value) = fields.get(&one).cloned() {
                fields.insert(two, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_part_changes_sooner_or_later_and_a_seed_always_does_the_same() {
        let state = json!({
            "registers": "00ff", "index": 7, "flag": true, "list": [1, [2]], "none": null,
        });
        let mut changed: Vec<&str> = Vec::new();
        for seed in 0..500 {
            let mut one = state.clone();
            mutate(&mut one, seed);
            let mut two = state.clone();
            mutate(&mut two, seed);
            assert_eq!(one, two);
            for name in ["registers", "index", "flag", "list", "none", "unknown"] {
                if one.get(name) != state.get(name) && !changed.contains(&name) {
                    changed.push(name);
                }
            }
        }
        assert_eq!(changed.len(), 6, "{changed:?}");
    }
}
