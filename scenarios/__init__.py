"""The scenario table: each scenario with each technique is a job; what it measures is docs/scenarios.md."""
