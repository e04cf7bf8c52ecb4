from .build import Cluster as Cluster
from .build import build_index as build_index
from .own_scores import add_score as add_score
