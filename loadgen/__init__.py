"""A load generator one can believe: workload -> pacer -> attack -> records -> metrics -> sweep -> report."""
