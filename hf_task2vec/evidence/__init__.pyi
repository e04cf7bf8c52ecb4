from .build import Cluster as Cluster
from .build import build_index as build_index
