from .images import like_sample as like_sample
from .labels import score_name as score_name
from .sources import DIGITS as DIGITS
from .sources import commit_of as commit_of
from .sources import open_source as open_source
from .task import Task as Task
