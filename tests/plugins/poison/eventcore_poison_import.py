"""Its import raises an exception of which nothing can be asked."""

from eventcore_poison import Hostile

raise Hostile
