"""The evaluation engine: config -> plan -> trials -> scores. Importing it does not import torch."""
