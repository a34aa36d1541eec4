//! The twenty-minute rule and BIP 94, as they apply to a node's templates
//! (see [`crate::chain::min_difficulty`]).

use std::time::{Duration, Instant};

use bitcoin::{BlockHash, CompactTarget};

use super::template::PreparedTemplate;
use crate::chain::min_difficulty::{Stage, bip94_earliest};
use crate::chain::params::Params;
use crate::engine::Port;

/// What is known for the rule: the tip's time, and what was announced.
#[derive(Debug, Default)]
pub struct MinDifficulty {
    /// The nTime of the block that templates build on, in seconds since 1970.
    tip_time: Option<(BlockHash, u32)>,
    /// Which difficulty was announced as mined, and its nBits.
    announced: Option<(Stage, CompactTarget)>,
}

impl MinDifficulty {
    /// The block whose nTime must be known before this template is mined, and is not.
    pub fn unknown_tip(
        &mut self,
        template: &PreparedTemplate,
        params: Option<&Params>,
    ) -> Option<BlockHash> {
        let hash = template.previous_block_hash();
        let is_known = self.tip_time.is_some_and(|(of, _)| of == hash);
        if is_known || !params.is_some_and(Params::has_twenty_minute_rule) {
            return None;
        }
        self.tip_time = None;
        Some(hash)
    }

    /// Notes a block's nTime.
    pub const fn set_tip_time(&mut self, hash: BlockHash, time: u32) {
        self.tip_time = Some((hash, time));
    }

    /// Applies the rule to a template, on a chain that has it: no nTime is mined with nBits that do
    /// not hold for it. Announces which difficulty is mined; returns when another template is
    /// needed.
    ///
    /// # Errors
    /// Why the template cannot be mined.
    pub fn apply_min_difficulty_rule(
        &mut self,
        template: &mut PreparedTemplate,
        params: Option<&Params>,
        port: &Port,
    ) -> Result<Option<Instant>, String> {
        let of_tip = |(hash, _): &(BlockHash, u32)| *hash == template.previous_block_hash();
        let (Some(params), Some((_, tip_time)), Some(height)) =
            (params, self.tip_time.filter(of_tip), template.height())
        else {
            return Ok(None);
        };
        let stage = Stage::of(height, tip_time, template.curtime);
        if let Some(earliest) = bip94_earliest(params.network, height, tip_time) {
            template.not_before(earliest);
        }
        if !stage.holds_at(template.ntime()) {
            return Err(format!(
                "the template's bits are for {}, and it may be mined from {} on only, where others \
                 hold",
                template.curtime,
                template.ntime()
            ));
        }
        let nbits = template.nbits();
        if self.announced.replace((stage, nbits)) != Some((stage, nbits)) {
            port.stage(stage, template.difficulty());
        }
        Ok(match stage {
            // The node's clock is not ahead of its template's.
            Stage::Period { last } => {
                let seconds = (u64::from(last) + 1).saturating_sub(u64::from(template.curtime));
                Some(template.received() + Duration::from_secs(seconds.max(1)))
            }
            Stage::Minimum { .. } | Stage::PeriodStart => None,
        })
    }
}
