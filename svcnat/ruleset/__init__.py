"""Pure: from objects to a Plan (policy decided once), from a Plan to a ruleset, from two rulesets to a change."""
