"""The tables, one noun per file. Rows and nothing else: what is done with them is in `services/`."""

from fleet_server.models.aggregate import AggregateDetail, AggregatedStream
from fleet_server.models.alert import (
    Alert,
    AlertKind,
    AlertRecipient,
    AlertRule,
    Delivery,
    NodeDay,
    NodeTrend,
    Severity,
    Silence,
)
from fleet_server.models.anchor import Anchor
from fleet_server.models.api_key import ApiKey, ApiKeyRole
from fleet_server.models.audit import AuditEntry, AuditHead
from fleet_server.models.base import Base, UtcSeconds
from fleet_server.models.calibration import (
    IN_FORCE,
    Calibration,
    CalibrationKind,
    CalibrationPoint,
    CalibrationStatus,
    PointStage,
)
from fleet_server.models.campaign import (
    Campaign,
    CampaignCursor,
    CampaignNode,
    CampaignState,
    CampaignWave,
    NodeStage,
)
from fleet_server.models.certificate import Certificate, CertificateState
from fleet_server.models.channel import Channel
from fleet_server.models.city import CityRuleSet, CityState
from fleet_server.models.command import Command
from fleet_server.models.configuration import Configuration
from fleet_server.models.configuration_change import (
    ChangeState,
    ConfigurationChange,
    ConfigurationChangeNode,
)
from fleet_server.models.configuration_layer import (
    ConfigurationLayer,
    ConfigurationLayerVersion,
    LayerKind,
)
from fleet_server.models.counter import Counter
from fleet_server.models.datastream import Datastream
from fleet_server.models.deployment import Deployment
from fleet_server.models.derived_stream import DerivedStream
from fleet_server.models.drift_correction import CorrectionStatus, DriftCorrection
from fleet_server.models.enrolment_token import EnrolmentToken
from fleet_server.models.event import Event
from fleet_server.models.external_identity import ExternalIdentity
from fleet_server.models.external_import import ExternalImport, ExternalValue, ImportKind
from fleet_server.models.field_note import FieldNote
from fleet_server.models.gap import Gap
from fleet_server.models.job import Job
from fleet_server.models.kept_answer import KeptAnswer
from fleet_server.models.lineage import Lineage
from fleet_server.models.login_session import LoginSession
from fleet_server.models.node import Node
from fleet_server.models.node_group import NodeGroup, NodeGroupMember, NodeTag
from fleet_server.models.node_status import NodeStatus
from fleet_server.models.observation import Observation, observation_id, observation_key
from fleet_server.models.observation_count import ObservationCount
from fleet_server.models.observation_history import ObservationHistory
from fleet_server.models.observed_range import ObservedRange
from fleet_server.models.outbox import Outbox
from fleet_server.models.pack import Pack
from fleet_server.models.password_reset import PasswordReset
from fleet_server.models.person_flag import PersonFlag
from fleet_server.models.quarantine import Quarantine
from fleet_server.models.raw_reading import RawReading
from fleet_server.models.receipt import Receipt
from fleet_server.models.release import Release, ReleaseComponent, SignedMetadata
from fleet_server.models.revision import MadeEarlier, Revision, RevisionStream
from fleet_server.models.rule_set import JudgedStream, RuleSet
from fleet_server.models.saved_view import SavedView
from fleet_server.models.second_factor import RecoveryCode, SecondFactor
from fleet_server.models.sensor import Sensor
from fleet_server.models.site import Site
from fleet_server.models.standard import Standard, StandardKind
from fleet_server.models.thinned_pack import ThinnedPack
from fleet_server.models.thinned_reading import ThinnedReading
from fleet_server.models.trusted_root import RootState, TrustedRoot
from fleet_server.models.unknown_name import UnknownName
from fleet_server.models.user import Role, Scope, User, UserRole
from fleet_server.models.work_order import WorkKind, WorkOrder, WorkState

__all__ = [
    "IN_FORCE",
    "AggregateDetail",
    "AggregatedStream",
    "Alert",
    "AlertKind",
    "AlertRecipient",
    "AlertRule",
    "Anchor",
    "ApiKey",
    "ApiKeyRole",
    "AuditEntry",
    "AuditHead",
    "Base",
    "Calibration",
    "CalibrationKind",
    "CalibrationPoint",
    "CalibrationStatus",
    "Campaign",
    "CampaignCursor",
    "CampaignNode",
    "CampaignState",
    "CampaignWave",
    "Certificate",
    "CertificateState",
    "ChangeState",
    "Channel",
    "CityRuleSet",
    "CityState",
    "Command",
    "Configuration",
    "ConfigurationChange",
    "ConfigurationChangeNode",
    "ConfigurationLayer",
    "ConfigurationLayerVersion",
    "CorrectionStatus",
    "Counter",
    "Datastream",
    "Delivery",
    "Deployment",
    "DerivedStream",
    "DriftCorrection",
    "EnrolmentToken",
    "Event",
    "ExternalIdentity",
    "ExternalImport",
    "ExternalValue",
    "FieldNote",
    "Gap",
    "ImportKind",
    "Job",
    "JudgedStream",
    "KeptAnswer",
    "LayerKind",
    "Lineage",
    "LoginSession",
    "MadeEarlier",
    "Node",
    "NodeDay",
    "NodeGroup",
    "NodeGroupMember",
    "NodeStage",
    "NodeStatus",
    "NodeTag",
    "NodeTrend",
    "Observation",
    "ObservationCount",
    "ObservationHistory",
    "ObservedRange",
    "Outbox",
    "Pack",
    "PasswordReset",
    "PersonFlag",
    "PointStage",
    "Quarantine",
    "RawReading",
    "Receipt",
    "RecoveryCode",
    "Release",
    "ReleaseComponent",
    "Revision",
    "RevisionStream",
    "Role",
    "RootState",
    "RuleSet",
    "SavedView",
    "Scope",
    "SecondFactor",
    "Sensor",
    "Severity",
    "SignedMetadata",
    "Silence",
    "Site",
    "Standard",
    "StandardKind",
    "ThinnedPack",
    "ThinnedReading",
    "TrustedRoot",
    "UnknownName",
    "User",
    "UserRole",
    "UtcSeconds",
    "WorkKind",
    "WorkOrder",
    "WorkState",
    "observation_id",
    "observation_key",
]
