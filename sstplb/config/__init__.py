"""What can be set: ``schema`` says what exists, ``loader`` turns a YAML file into it."""
